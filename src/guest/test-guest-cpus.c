#include "guest-cpus.h"

#include "unit.h"

static int added(const char *event, size_t len)
{
	return guest_cpus_added(event, len);
}
#define ADDED(s) added(s, sizeof(s))

static void events(void **state)
{
	assert_int_equal(ADDED("add@/devices/system/cpu/cpu3\0ACTION=add"), 3);
	assert_int_equal(ADDED("add@/devices/system/cpu/cpu12"), 12);
	assert_int_equal(ADDED("remove@/devices/system/cpu/cpu3"), -1);
	assert_int_equal(ADDED("add@/devices/system/cpu/cpu"), -1);
	assert_int_equal(ADDED("add@/devices/system/cpu/cpu1/cache"), -1);
	assert_int_equal(ADDED("add@/devices/system/cpu/cpufreq"), -1);
	assert_int_equal(ADDED("add@/devices/system/cpu/cpu99999999999999999999"), -1);
	/* without an end */
	assert_int_equal(added("add@/devices/system/cpu/cpu3", 28), -1);
	assert_int_equal(added("", 0), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(events) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
