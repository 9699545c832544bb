#include "cleanup.h"
#include "str.h"
#include "unit.h"

static void escapes(void **state)
{
	char out[16];

	assert_int_equal(str_escape(out, sizeof out, "a\x1b[0m", 5, NULL), 8);
	assert_string_equal(out, "a\\x1b[0m");
	str_escape(out, sizeof out, "a\nb\0c", 5, "\n");
	assert_string_equal(out, "a\nb\\x00c");
	/* a cut never splits an escape */
	assert_int_equal(str_escape(out, 5, "ab\x01", 3, NULL), 2);
	assert_string_equal(out, "ab");
	assert_int_equal(str_escape(out, 1, "ab", 2, NULL), 0);
}

static void distances(void **state)
{
	assert_int_equal(str_distance("", ""), 0);
	assert_int_equal(str_distance("stop", "stpo"), 2);
	assert_int_equal(str_distance("lss", "ls"), 1);
	assert_int_equal(str_distance("", "abc"), 3);
}

static void vectors(void **state)
{
	CLEANUP(strv_freep) char **v = NULL;

	assert_int_equal(strv_length(v), 0);
	assert_int_equal(strv_push(&v, "a"), 0);
	assert_int_equal(strv_pushf(&v, "%d", 7), 0);
	assert_int_equal(strv_length(v), 2);
	assert_string_equal(v[1], "7");
	assert_null(v[2]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(escapes),
		cmocka_unit_test(distances),
		cmocka_unit_test(vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
