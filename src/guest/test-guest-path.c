#include "unit.h"

#include "guest-path.h"

#include <errno.h>
#include <string.h>

static void expect(const char *path, const char *name, const char *all)
{
	char got[1024] = "", buf[PATH_MAX];

	while (guest_path_next(&path, name, buf)) {
		strcat(got, buf);
		strcat(got, " ");
	}
	assert_string_equal(got, all);
}

static void test_candidates(void **state)
{
	expect("/a:/b", "x", "/a/x /b/x ");
	expect("/a::/b", "x", "/a/x ./x /b/x ");
	expect("", "x", "./x ");
	expect("/a:/b", "./x", "./x ");
	expect("/a", "/bin/x", "/bin/x ");
}

static void test_too_long(void **state)
{
	static char path[PATH_MAX + 100];

	memset(path, 'a', sizeof path - 1);
	memcpy(path + sizeof path - 4, ":/b", 4);
	expect(path, "x", "/b/x ");
}

static void test_errors(void **state)
{
	char name[] = "no-such-program", empty[] = "", directory[] = "/etc";
	char *argv[] = { name, NULL }, *env[] = { NULL };

	assert_int_equal(guest_path_exec("/bin:/usr/bin", argv, env), ENOENT);
	argv[0] = empty;
	assert_int_equal(guest_path_exec("/bin", argv, env), ENOENT);
	argv[0] = directory;
	assert_int_equal(guest_path_exec("/bin", argv, env), EACCES);
	assert_int_equal(guest_path_exit_code(ENOENT), 127);
	assert_int_equal(guest_path_exit_code(ENOTDIR), 127);
	assert_int_equal(guest_path_exit_code(ENOEXEC), 126);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_candidates),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
