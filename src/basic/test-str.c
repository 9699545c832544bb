#include "cleanup.h"
#include "str.h"
#include "unit.h"
#include <ctype.h>
#include <errno.h>

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

static void hex(void **state)
{
	uint8_t bytes[2];
	char text[5];

	assert_int_equal(str_unhex(bytes, "0aff", 2), 0);
	assert_int_equal(bytes[0] << 8 | bytes[1], 0x0aff);
	str_hex(text, bytes, 2);
	assert_string_equal(text, "0aff");
	assert_int_equal(str_unhex(bytes, "0af", 2), -EINVAL);
	assert_int_equal(str_unhex(bytes, "0aff0", 2), -EINVAL);
	assert_int_equal(str_unhex(bytes, "0aFF", 2), -EINVAL);
	assert_int_equal(str_unhex(bytes, "0a f", 2), -EINVAL);
}

static void names(void **state)
{
	assert_int_equal(str_span_name("aZ09_.-/x", SIZE_MAX), 7);
	assert_int_equal(str_span_name("abc", 2), 2);
	assert_int_equal(str_span_name("", 9), 0);
	assert_true(str_is_name("a.b", 3, 3));
	assert_true(str_is_name("-a", 2, 64));
	assert_false(str_is_name("a.b", 3, 2));
	assert_false(str_is_name("", 0, 64));
	assert_false(str_is_name(".a", 2, 64));
	assert_false(str_is_name("..", 2, 64));
	for (int c = 0; c < 256; c++) {
		char s[] = { 'a', (char)c };

		assert_int_equal(
			str_is_name(s, 2, 64), c < 128 && (isalnum(c) || (c && strchr("_.-", c))));
	}
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
		cmocka_unit_test(hex),
		cmocka_unit_test(names),
		cmocka_unit_test(distances),
		cmocka_unit_test(vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
