#include <endian.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"
#include "virtq.h"

#define NUM 4

static struct guest_mem m;
static struct virtq_parts parts;
static struct virtq q;
static struct virtq_chain c;
static uint8_t *ram;

static int setup(void **state)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, 65536) < 0 || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return -1;
	guest_mem_init(&m, false);
	if (guest_mem_add(&m, fd, 0, 65536, 0, 0) < 0)
		return -1;
	close(fd);
	ram = m.regions[0].data;
	parts = (struct virtq_parts){ ram, ram + 4096, ram + 8192 };
	return 0;
}

static int teardown(void **state)
{
	guest_mem_finish(&m);
	return 0;
}

static void start(bool event_idx)
{
	memset(ram, 0, 65536);
	virtq_start(&q, &parts, NUM, event_idx, true);
}

static void offer(uint16_t n, uint64_t addr, uint32_t len, uint16_t flags)
{
	const struct vring_desc d = { htole64(addr), htole32(len), htole16(flags), 0 };
	uint16_t *avail = parts.avail;

	memcpy(ram + 16 * (n % NUM), &d, sizeof d);
	avail[2 + n % NUM] = htole16(n % NUM);
	avail[1] = htole16(n + 1);
}

static void pops_and_pushes(void **state)
{
	uint16_t *used = parts.used;

	start(false);
	assert_int_equal(virtq_pop(&q, &m, &c), 0);
	offer(0, 0x4000, 100, 0);
	assert_int_equal(virtq_pop(&q, &m, &c), 1);
	assert_int_equal(c.out_bytes, 100);
	assert_ptr_equal(c.out[0].iov_base, ram + 0x4000);
	virtq_unpop(&q);
	assert_int_equal(virtq_pop(&q, &m, &c), 1);
	virtq_push(&q, &c, 7);
	assert_int_equal(used[1], 1);
	assert_int_equal(((uint32_t *)parts.used)[2], 7);
}

/* The 16-bit indices run over; the ring does not mind. */
static void indices_wrap(void **state)
{
	start(true);
	for (uint32_t i = 0; i < 70000; i++) {
		offer((uint16_t)i, 0x4000, 1, VRING_DESC_F_WRITE);
		assert_int_equal(virtq_pop(&q, &m, &c), 1);
		virtq_push(&q, &c, 0);
		assert_false(virtq_arm(&q));
	}
	assert_int_equal(((uint16_t *)parts.used)[1], (uint16_t)70000);
}

static void calls_by_event_idx(void **state)
{
	uint16_t *used_event = (uint16_t *)parts.avail + 2 + NUM;

	start(true);
	c.head = 0;
	virtq_push(&q, &c, 0);
	assert_true(virtq_wants_call(&q)); /* the first: nothing is known yet */
	assert_false(virtq_wants_call(&q));
	*used_event = 2;
	virtq_push(&q, &c, 0);
	assert_false(virtq_wants_call(&q));
	virtq_push(&q, &c, 0);
	assert_true(virtq_wants_call(&q));
}

static void calls_by_flag(void **state)
{
	start(false);
	virtq_push(&q, &c, 0);
	assert_true(virtq_wants_call(&q));
	*(uint16_t *)parts.avail = htole16(VRING_AVAIL_F_NO_INTERRUPT);
	virtq_push(&q, &c, 0);
	assert_false(virtq_wants_call(&q));
	virtq_disarm(&q);
	assert_int_equal(*(uint16_t *)parts.used, VRING_USED_F_NO_NOTIFY);
	assert_false(virtq_arm(&q));
	assert_int_equal(*(uint16_t *)parts.used, 0);
}

static void broken_stays_broken(void **state)
{
	start(true);
	offer(0, 1 << 20, 4, 0);
	assert_true(virtq_pop(&q, &m, &c) < 0);
	offer(0, 0x4000, 4, 0);
	assert_true(virtq_pop(&q, &m, &c) < 0);
	assert_false(virtq_arm(&q));
}

/* A kick is asked for at the next entry, whatever waits already. */
static void watched(void **state)
{
	uint16_t event;

	start(true);
	offer(0, 0x8000, 4, 2);
	offer(1, 0x8100, 4, 2);
	assert_int_equal(virtq_watch(&q), 2);
	memcpy(&event, (uint8_t *)parts.used + 4 + 8 * NUM, sizeof event);
	assert_int_equal(le16toh(event), 2);
	offer(2, 0x8200, 4, 2);
	assert_int_equal(virtq_watch(&q), 3);
	start(false);
	virtq_disarm(&q);
	assert_int_equal(virtq_watch(&q), 0);
	memcpy(&event, parts.used, sizeof event);
	assert_int_equal(event, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(watched),
		cmocka_unit_test(pops_and_pushes),
		cmocka_unit_test(indices_wrap),
		cmocka_unit_test(calls_by_event_idx),
		cmocka_unit_test(calls_by_flag),
		cmocka_unit_test(broken_stays_broken),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
