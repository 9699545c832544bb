#include "parse.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "cleanup.h"

struct unit {
	const char *suffix;
	uint64_t factor;
};

/* Reads leading digits; *REST is what follows them. */
static int parse_digits(const char *s, uint64_t *ret, const char **rest)
{
	uint64_t v = 0;

	if (*s < '0' || *s > '9')
		return -EINVAL;
	for (; *s >= '0' && *s <= '9'; s++) {
		if (__builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
			return -ERANGE;
	}
	*ret = v;
	*rest = s;
	return 0;
}

static int parse_with_unit(const char *s, const struct unit *units, size_t n, uint64_t *ret)
{
	const char *rest;
	uint64_t v;
	int r;

	r = parse_digits(s, &v, &rest);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (strcmp(rest, units[i].suffix) != 0)
			continue;
		if (__builtin_mul_overflow(v, units[i].factor, &v))
			return -ERANGE;
		*ret = v;
		return 0;
	}
	return -EINVAL;
}

int parse_u64(const char *s, uint64_t max, uint64_t *ret)
{
	const char *rest;
	uint64_t v;
	int r;

	r = parse_digits(s, &v, &rest);
	if (r < 0)
		return r;
	if (*rest)
		return -EINVAL;
	if (v > max)
		return -ERANGE;
	*ret = v;
	return 0;
}

int parse_u32(const char *s, uint32_t max, uint32_t *ret)
{
	uint64_t v;
	int r;

	r = parse_u64(s, max, &v);
	if (r < 0)
		return r;
	*ret = (uint32_t)v;
	return 0;
}

int parse_size(const char *s, uint64_t *ret_bytes)
{
	static const struct unit units[] = {
		{ "", 1 },
		{ "K", UINT64_C(1) << 10 },
		{ "M", UINT64_C(1) << 20 },
		{ "G", UINT64_C(1) << 30 },
		{ "T", UINT64_C(1) << 40 },
	};

	return parse_with_unit(s, units, ARRAY_SIZE(units), ret_bytes);
}

int parse_duration(const char *s, uint64_t *ret_usec)
{
	static const struct unit units[] = {
		{ "", 1000000 },
		{ "s", 1000000 },
		{ "ms", 1000 },
		{ "us", 1 },
		{ "min", UINT64_C(60) * 1000000 },
		{ "h", UINT64_C(3600) * 1000000 },
	};

	if (strcmp(s, "infinity") == 0) {
		*ret_usec = UINT64_MAX;
		return 0;
	}
	return parse_with_unit(s, units, ARRAY_SIZE(units), ret_usec);
}

int parse_port(const char *s, uint32_t *ret)
{
	uint32_t v;
	int r;

	r = parse_u32(s, 65535, &v);
	if (r < 0)
		return r;
	if (v == 0)
		return -ERANGE;
	*ret = v;
	return 0;
}
