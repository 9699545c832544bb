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

/* Every byte string up to two bytes, and the edges of the longer ones, beside the definition. */
static void utf8(void **state)
{
	static const struct {
		const char *s;
		size_t span, unfinished;
	} tests[] = {
		{ "\xe2\x80\xa6", 3, 0 },
		{ "\xe2\x80", 0, 2 },
		{ "\xe2", 0, 1 },
		{ "\x80", 0, 0 },
		{ "\xc0\x80", 0, 0 },
		{ "\xc1\xbf", 0, 0 },
		{ "\xc2\x80", 2, 0 },
		{ "\xe0\x9f\xbf", 0, 0 },
		{ "\xe0\xa0\x80", 3, 0 },
		{ "\xed\xa0\x80", 0, 0 },
		{ "\xed\x9f\xbf", 3, 0 },
		{ "\xf0\x8f\xbf\xbf", 0, 0 },
		{ "\xf0\x90\x80\x80", 4, 0 },
		{ "\xf4\x8f\xbf\xbf", 4, 0 },
		{ "\xf4\x90\x80\x80", 0, 0 },
		{ "\xf0\x90\x80", 0, 3 },
		{ "\xf5\x80\x80\x80", 0, 0 },
		{ "\xff", 0, 0 },
		{ "a\xe2\x80", 1, 2 },
		{ "", 0, 0 },
		{ "\xe0\x80", 0, 0 },
		{ "a", 1, 0 },
		{ "\xc3\xa4", 2, 0 },
		{ "\xe2\x80\xa6\xf0", 3, 1 },
	};
	char out[64];

	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		assert_int_equal(str_utf8_span(tests[i].s, strlen(tests[i].s)), tests[i].span);
		assert_int_equal(
			str_utf8_unfinished(tests[i].s, strlen(tests[i].s)), tests[i].unfinished);
	}
	str_escape(out, sizeof out,
		"D\xe2\x80\xa6\xc2\x9b"
		"1m\xe2\x80",
		10, NULL);
	assert_string_equal(out, "D\xe2\x80\xa6\\xc2\\x9b1m\\xe2\\x80");
	/* a cut splits no character */
	assert_int_equal(str_escape(out, 4, "a\xe2\x80\xa6", 4, NULL), 1);
	assert_int_equal(str_escape(out, 5, "a\xe2\x80\xa6", 4, NULL), 4);
	for (int c = 0; c < 256 * 256; c++) {
		char in[] = { (char)(c >> 8), (char)c };
		size_t n = str_escape(out, sizeof out, in, 2, NULL);

		for (size_t at = 0; at < n; at += str_utf8_span(out + at, n - at))
			assert_true(
				str_utf8_span(out + at, n - at) > 0 && (uint8_t)out[at] >= 0x20);
	}
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
		cmocka_unit_test(utf8),
		cmocka_unit_test(hex),
		cmocka_unit_test(names),
		cmocka_unit_test(distances),
		cmocka_unit_test(vectors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
