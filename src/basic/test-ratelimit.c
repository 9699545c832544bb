#include "ratelimit.h"
#include "unit.h"

static struct ratelimit l;
static uint32_t n;

static void burst_then_silence(void **state)
{
	l = (struct ratelimit){ .interval_usec = 1000, .burst = 3 };
	for (int i = 0; i < 3; i++) {
		assert_true(ratelimit_pass(&l, 5000, &n));
		assert_int_equal(n, 0);
	}
	for (int i = 0; i < 7; i++)
		assert_false(ratelimit_pass(&l, 5999, &n));
	/* the next interval says how many were not said */
	assert_true(ratelimit_pass(&l, 6000, &n));
	assert_int_equal(n, 7);
	assert_true(ratelimit_pass(&l, 6000, &n));
	assert_int_equal(n, 0);
}

static void burst_of_none(void **state)
{
	l = (struct ratelimit){ .interval_usec = 1000 };
	for (uint64_t now = 1; now < 10000; now += 500)
		assert_false(ratelimit_pass(&l, now, &n));
	assert_int_equal(l.suppressed, 20);
}

static void long_pause(void **state)
{
	l = (struct ratelimit){ .interval_usec = 1000, .burst = 1 };
	assert_true(ratelimit_pass(&l, 1, &n));
	assert_false(ratelimit_pass(&l, 2, &n));
	assert_true(ratelimit_pass(&l, UINT64_MAX, &n));
	assert_int_equal(n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(burst_then_silence),
		cmocka_unit_test(burst_of_none),
		cmocka_unit_test(long_pause),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
