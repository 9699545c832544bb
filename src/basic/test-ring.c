#include <string.h>

#include "ring.h"
#include "unit.h"

static void wraps(void **state)
{
	uint8_t mem[8];
	struct iovec iov[2];
	struct ring r;

	ring_init(&r, mem, sizeof mem);
	assert_int_equal(ring_iov(&r, iov), 0);
	assert_int_equal(ring_put(&r, "abcdef", 6), 6);
	ring_consume(&r, 5);
	assert_int_equal(ring_put(&r, "0123456789", 10), 7);
	assert_int_equal(ring_room(&r), 0);
	assert_int_equal(ring_iov(&r, iov), 2);
	assert_int_equal(iov[0].iov_len, 3);
	assert_memory_equal(iov[0].iov_base, "f01", 3);
	assert_memory_equal(iov[1].iov_base, "23456", 5);
	ring_consume(&r, 8);
	assert_int_equal(ring_used(&r), 0);
}

static void counters_overflow(void **state)
{
	uint8_t mem[16];
	struct iovec iov[2];
	struct ring r;

	ring_init(&r, mem, sizeof mem);
	r.head = r.tail = UINT32_MAX - 3;
	assert_int_equal(ring_put(&r, "abcdefgh", 8), 8);
	assert_int_equal(ring_used(&r), 8);
	assert_int_equal(ring_iov(&r, iov), 2);
	assert_memory_equal(iov[1].iov_base, "efgh", 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wraps),
		cmocka_unit_test(counters_overflow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
