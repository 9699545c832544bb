#include <errno.h>

#include "cleanup.h"
#include "parse.h"
#include "unit.h"

static void numbers(void **state)
{
	uint32_t v = 7;

	assert_int_equal(parse_u32("0", 10, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(parse_u32("10", 10, &v), 0);
	assert_int_equal(parse_u32("11", 10, &v), -ERANGE);
	assert_int_equal(v, 10);
	assert_int_equal(parse_u32("-1", 10, &v), -EINVAL);
	assert_int_equal(parse_u32("+1", 10, &v), -EINVAL);
	assert_int_equal(parse_u32(" 1", 10, &v), -EINVAL);
	assert_int_equal(parse_u32("1 ", 10, &v), -EINVAL);
	assert_int_equal(parse_u32("", 10, &v), -EINVAL);
	assert_int_equal(parse_u32("99999999999999999999", UINT32_MAX, &v), -ERANGE);
}

static void sizes(void **state)
{
	uint64_t v;

	assert_int_equal(parse_size("512M", &v), 0);
	assert_int_equal(v, UINT64_C(512) << 20);
	assert_int_equal(parse_size("4096", &v), 0);
	assert_int_equal(v, 4096);
	assert_int_equal(parse_size("1.5G", &v), -EINVAL);
	assert_int_equal(parse_size("16777216T", &v), -ERANGE);
	assert_int_equal(parse_size("M", &v), -EINVAL);
}

static void durations(void **state)
{
	uint64_t v;

	assert_int_equal(parse_duration("90", &v), 0);
	assert_int_equal(v, 90000000);
	assert_int_equal(parse_duration("250ms", &v), 0);
	assert_int_equal(v, 250000);
	assert_int_equal(parse_duration("2min", &v), 0);
	assert_int_equal(v, 120000000);
	assert_int_equal(parse_duration("infinity", &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(parse_duration("3 days", &v), -EINVAL);
}

static void ports(void **state)
{
	uint32_t v;

	assert_int_equal(parse_port("0", &v), -ERANGE);
	assert_int_equal(parse_port("65536", &v), -ERANGE);
	assert_int_equal(parse_port("65535", &v), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(sizes),
		cmocka_unit_test(durations),
		cmocka_unit_test(ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
