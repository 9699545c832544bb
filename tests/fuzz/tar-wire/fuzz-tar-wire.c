/* A block and the records of an extended header; what decodes and can be written reads back the same. */
#include "tar-wire.h"

#include <assert.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void sum(uint8_t *block)
{
	unsigned n = 0;

	memset(block + 148, ' ', 8);
	for (size_t i = 0; i < TAR_WIRE_BLOCK; i++)
		n += block[i];
	for (size_t i = 0; i < 6; i++, n /= 8)
		block[148 + 5 - i] = (uint8_t)('0' + n % 8);
	block[154] = 0;
}

static void read_back(const struct tar_wire_entry *e)
{
	static uint8_t head[TAR_WIRE_HEAD_MAX];
	static struct tar_wire_entry pax, again;
	ssize_t n = tar_wire_encode(e, head);

	if (n < 0)
		return;
	assert(n % TAR_WIRE_BLOCK == 0);
	assert(tar_wire_decode(head, &pax) == 1);
	assert(tar_wire_decode(head + n - TAR_WIRE_BLOCK, &again) == 1);
	if (n > TAR_WIRE_BLOCK)
		assert(tar_wire_apply_pax(&again, (char *)head + TAR_WIRE_BLOCK, pax.size) == 0);
	assert(again.mtime_sec == e->mtime_sec && again.mtime_nsec == e->mtime_nsec);
	assert(again.uid == e->uid && again.gid == e->gid && again.mode == e->mode);
	assert(again.size == e->size);
	assert(memcmp(again.name, e->name, e->name_len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct tar_wire_entry e;
	struct tar_wire_region map[TAR_WIRE_OLD_EXTEND];
	uint8_t block[TAR_WIRE_BLOCK];
	bool more;

	if (size < sizeof block)
		return 0;
	memcpy(block, data, sizeof block);
	sum(block);
	tar_wire_old_map(block, false, map, &more);
	if (tar_wire_decode(block, &e) <= 0)
		return 0;
	if (e.sparse == TAR_WIRE_SPARSE_OLD)
		tar_wire_old_map(block, true, map, &more);
	if (tar_wire_apply_pax(&e, (const char *)data + sizeof block, size - sizeof block) < 0)
		return 0;
	if (e.type >= TAR_WIRE_FILE && e.type <= TAR_WIRE_FIFO && e.sparse == TAR_WIRE_DENSE)
		read_back(&e);
	return 0;
}
