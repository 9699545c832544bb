#include "unit.h"

#include "guest-user.h"

#include <errno.h>

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "broken line\n"
			     "bad:x:-1:0::/:/bin/sh\n"
			     "www:x:33:33:www:/var/www:/bin/false\n"
			     "last:x:50:60::/last";
static const char group[] = "root:x:0:\nwww:x:33:\naudio:x:29:root,www\nvideo:x:44:www\nno:x\n";

static void test_lookup(void **state)
{
	struct guest_user u;

	assert_int_equal(guest_user_lookup("", passwd, group, &u), 0);
	assert_int_equal(u.uid, 0);
	assert_string_equal(u.home, "/root");
	assert_int_equal(u.n_groups, 1);
	assert_int_equal(guest_user_lookup("www", passwd, group, &u), 0);
	assert_int_equal(u.uid, 33);
	assert_int_equal(u.n_groups, 2);
	assert_int_equal(u.groups[1], 44);
	assert_int_equal(guest_user_lookup("33", passwd, group, &u), 0);
	assert_string_equal(u.name, "www");
	assert_int_equal(guest_user_lookup("www:video", passwd, group, &u), 0);
	assert_int_equal(u.gid, 44);
	assert_int_equal(u.n_groups, 0);
	assert_int_equal(guest_user_lookup("7:8", passwd, group, &u), 0);
	assert_int_equal(u.uid, 7);
	assert_int_equal(u.gid, 8);
	assert_string_equal(u.home, "/");
	assert_int_equal(guest_user_lookup("last", passwd, group, &u), 0);
	assert_string_equal(u.home, "/last");
}

static void test_refused(void **state)
{
	struct guest_user u;

	assert_int_equal(guest_user_lookup("nobody", passwd, group, &u), -ENOENT);
	assert_int_equal(guest_user_lookup("bad", passwd, group, &u), -ENOENT);
	assert_int_equal(guest_user_lookup("www:nogroup", passwd, group, &u), -ENOENT);
	assert_int_equal(guest_user_lookup(":", passwd, group, &u), -EINVAL);
	assert_int_equal(guest_user_lookup("www:", passwd, group, &u), -EINVAL);
	assert_int_equal(guest_user_lookup("4294967295", passwd, group, &u), -ENOENT);
	assert_int_equal(guest_user_lookup("", "", "", &u), 0); /* an image without files */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lookup),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
