#include "str.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"

char *str_printf(const char *format, ...)
{
	va_list ap;
	char *s;
	int r;

	va_start(ap, format);
	r = vasprintf(&s, format, ap);
	va_end(ap);
	return r < 0 ? NULL : s;
}

int str_set(char **p, const char *s)
{
	char *copy = NULL;

	if (s) {
		copy = strdup(s);
		if (!copy)
			return -ENOMEM;
	}
	free(*p);
	*p = copy;
	return 0;
}

/* Of a lead byte: how long its character is, and what the second byte may be. 0: it is none. */
static size_t utf8_lead(uint8_t lead, uint8_t *ret_low, uint8_t *ret_high)
{
	*ret_low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	*ret_high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	return lead < 0x80   ? 1
	       : lead < 0xc2 ? 0
	       : lead < 0xe0 ? 2
	       : lead < 0xf0 ? 3
	       : lead < 0xf5 ? 4
			     : 0;
}

/* How many of LEN bytes at P go together as (the beginning of) a character of *RET_WANT bytes; 0: none. */
static size_t utf8_match(const uint8_t *p, size_t len, size_t *ret_want)
{
	uint8_t low, high;
	size_t n = 1;

	*ret_want = len > 0 ? utf8_lead(p[0], &low, &high) : 0;
	if (*ret_want == 0)
		return 0;
	for (; n < *ret_want && n < len; n++) {
		if (p[n] < (n == 1 ? low : 0x80) || p[n] > (n == 1 ? high : 0xbf))
			return 0;
	}
	return n;
}

size_t str_utf8_span(const void *p, size_t len)
{
	size_t want, n = utf8_match(p, len, &want);

	return n == want ? n : 0;
}

size_t str_utf8_unfinished(const void *p, size_t len)
{
	for (size_t n = 1; n <= 3 && n <= len; n++) {
		size_t want;

		if (utf8_match((const uint8_t *)p + len - n, n, &want) == n)
			return n < want ? n : 0;
	}
	return 0;
}

static bool str_is_control(const uint8_t *p, size_t span)
{
	return span == 1 ? *p < 0x20 || *p == 0x7f
			 : span == 2 && p[0] == 0xc2 && p[1] < 0xa0; /* U+0080 … U+009F */
}

size_t str_escape(char *out, size_t size, const void *in, size_t len, const char *keep)
{
	const uint8_t *p = in;
	size_t n = 0;

	if (size == 0)
		return 0;
	for (size_t i = 0; i < len;) {
		size_t span = str_utf8_span(p + i, len - i);
		bool plain = span > 0 && !str_is_control(p + i, span) && p[i] != '\\';
		size_t take = plain ? span : 1, need;

		plain = plain || (p[i] != 0 && p[i] < 0x80 && keep && strchr(keep, p[i]));
		need = plain ? take : 4;
		if (n + need >= size)
			break;
		if (plain)
			memcpy(out + n, p + i, take);
		else
			snprintf(out + n, size - n, "\\x%02x", p[i]);
		n += need;
		i += take;
	}
	out[n] = 0;
	return n;
}

static bool str_is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '_' || c == '.' || c == '-';
}

size_t str_span_name(const char *s, size_t max)
{
	size_t n = 0;

	while (n < max && str_is_name_byte(s[n]))
		n++;
	return n;
}

bool str_is_name(const char *s, size_t len, size_t max)
{
	return len >= 1 && len <= max && *s != '.' && str_span_name(s, len) == len;
}

size_t str_distance(const char *a, const char *b)
{
	size_t row[65], la = strlen(a), lb = strlen(b);

	if (la > 64 || lb > 64)
		return SIZE_MAX;
	for (size_t j = 0; j <= lb; j++)
		row[j] = j;
	for (size_t i = 1; i <= la; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= lb; j++) {
			size_t change = diagonal + (a[i - 1] != b[j - 1]);
			size_t least = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;

			diagonal = row[j];
			row[j] = change < least ? change : least;
		}
	}
	return row[lb];
}

uint64_t str_hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325;

	for (; *s; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3;
	return h;
}

void str_hex(char *out, const void *in, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = in;

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[p[i] >> 4];
		out[2 * i + 1] = digits[p[i] & 15];
	}
	out[2 * len] = 0;
}

static int str_nibble(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -EINVAL;
}

int str_unhex(void *out, const char *hex, size_t len)
{
	uint8_t *p = out;

	if (strlen(hex) != 2 * len)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		int high = str_nibble(hex[2 * i]), low = str_nibble(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		p[i] = (uint8_t)(high << 4 | low);
	}
	return 0;
}

void strv_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

size_t strv_length(char *const *v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

static int strv_push_consume(char ***v, char *s)
{
	size_t n = strv_length(*v);
	char **bigger;

	if (!s)
		return -ENOMEM;
	bigger = reallocarray(*v, n + 2, sizeof *bigger);
	if (!bigger) {
		free(s);
		return -ENOMEM;
	}
	bigger[n] = s;
	bigger[n + 1] = NULL;
	*v = bigger;
	return 0;
}

int strv_push(char ***v, const char *s)
{
	return strv_push_consume(v, strdup(s));
}

int strv_pushf(char ***v, const char *format, ...)
{
	va_list ap;
	char *s;
	int r;

	va_start(ap, format);
	r = vasprintf(&s, format, ap);
	va_end(ap);
	return r < 0 ? -ENOMEM : strv_push_consume(v, s);
}
