#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox.h"
#include "unit.h"

static void drops(void **state)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct got[_LINUX_CAPABILITY_U32S_3];
	struct rlimit lim;

	assert_int_equal(sandbox_drop_privileges(), 0);
	assert_int_equal(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	assert_int_equal(getrlimit(RLIMIT_CORE, &lim), 0);
	assert_int_equal(lim.rlim_max, 0);
	assert_int_equal(syscall(SYS_capget, &head, got), 0);
	assert_int_equal(
		got[0].effective | got[0].permitted | got[1].effective | got[1].permitted, 0);
	assert_int_equal(got[0].inheritable | got[1].inheritable, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(drops) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
