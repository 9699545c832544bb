/* A whole stream, in two sizes of pieces: what comes out is the same, in order, and inside the file. */
#include "tree-read.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
	uint64_t sum, n_entries, next, real_size;
	bool open;
};

static int on_entry(void *user, const struct tar_wire_entry *e)
{
	struct seen *s = user;

	assert(!s->open);
	assert(strlen(e->name) == e->name_len && strlen(e->link) == e->link_len);
	s->n_entries++;
	s->sum = s->sum * 31 + e->type + e->size + e->name_len;
	s->next = 0;
	s->real_size = e->real_size;
	s->open = e->type == TAR_WIRE_FILE;
	return !s->open;
}

static int on_data(void *user, uint64_t offset, const void *bytes, size_t n)
{
	struct seen *s = user;

	assert(s->open && n > 0 && offset >= s->next);
	s->next = offset + n;
	assert(s->next <= s->real_size);
	for (size_t i = 0; i < n; i++)
		s->sum = s->sum * 31 + ((const uint8_t *)bytes)[i] + offset + i;
	return 0;
}

static int on_end(void *user)
{
	struct seen *s = user;

	assert(s->open);
	s->open = false;
	return 0;
}

static void on_odd(void *user, const struct tar_wire_entry *e)
{
	struct seen *s = user;

	assert(!s->open);
}

static int read_in_pieces(const uint8_t *data, size_t size, size_t piece, struct seen *s)
{
	static const struct tree_read_ops ops = { on_entry, on_data, on_end, on_odd };
	struct tree_read *r;
	int q = tree_read_create(&ops, s, &r);

	for (size_t at = 0; at < size && q == 0; at += piece)
		q = tree_read_push(r, data + at, size - at < piece ? size - at : piece);
	if (q == 0)
		q = tree_read_is_whole(r);
	tree_read_destroy(r);
	return q;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole = {}, pieces = {};

	assert(read_in_pieces(data, size, size + 1, &whole) ==
		read_in_pieces(data, size, 509, &pieces));
	assert(whole.sum == pieces.sum && whole.n_entries == pieces.n_entries);
	return 0;
}
