#include <errno.h>

#include "unit.h"
#include "vsockd-args.h"

#define ARGS(...) ((const char *const[]){ "uvms-vsockd", __VA_ARGS__, NULL })

static int parse(const char *const *argv, struct vsockd_args *ret, const char **bad)
{
	int n = 0;

	while (argv[n])
		n++;
	return vsockd_args_parse(n, (char **)argv, ret, bad);
}

static void good(void **state)
{
	struct vsockd_args a;
	const char *bad;

	assert_int_equal(parse(ARGS("--name", "x", "--cid", "3", "--vhost-fd", "3", "--listen-fd",
				       "4", "--path", "v"),
				 &a, &bad),
		0);
	assert_int_equal(a.cid, 3);
	assert_int_equal(a.listen_fd, 4);
	assert_int_equal(a.table_fd, -EBADF);
	assert_int_equal(parse(ARGS("--help"), &a, &bad), 0);
	assert_true(a.help);
}

static void bad_ones(void **state)
{
	struct vsockd_args a;
	const char *bad;

	assert_int_equal(parse(ARGS("--cid", "2"), &a, &bad), -EINVAL);
	assert_string_equal(bad, "--cid");
	assert_int_equal(parse(ARGS("--cid", "4294967295"), &a, &bad), -EINVAL);
	assert_int_equal(parse(ARGS("--vhost-fd", "2"), &a, &bad), -EINVAL);
	assert_int_equal(parse(ARGS("--vhost-fd", "-1"), &a, &bad), -EINVAL);
	assert_int_equal(parse(ARGS("--path"), &a, &bad), -EINVAL);
	assert_int_equal(parse(ARGS("--path", ""), &a, &bad), -EINVAL);
	assert_int_equal(parse(ARGS("--nonsense"), &a, &bad), -EINVAL);
	assert_string_equal(bad, "--nonsense");
	assert_int_equal(parse(ARGS("--name", "x"), &a, &bad), -EINVAL);
	assert_string_equal(bad, "--cid");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(good), cmocka_unit_test(bad_ones) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
