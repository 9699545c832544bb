/* Strings on the heap and safe printing of hostile ones. NULL results mean out of memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline bool str_eq(const char *a, const char *b)
{
	return a && b && strcmp(a, b) == 0;
}

static inline bool str_has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static inline const char *str_or(const char *s, const char *fallback)
{
	return s ? s : fallback;
}

/* asprintf() that returns the string; the caller frees it. */
char *str_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Replaces *P by a copy of S (NULL: by NULL). 0 or -ENOMEM; *P unchanged on failure. */
int str_set(char **p, const char *s);

/*
 * The length in bytes (1 … 4) of the character that LEN bytes at P begin with, 0 when that is no well-formed UTF-8
 * (The Unicode Standard, table 3-7).
 */
size_t str_utf8_span(const void *p, size_t len);

/* How many of the last bytes (0 … 3) may be the beginning of a character whose rest is still to come. */
size_t str_utf8_unfinished(const void *p, size_t len);

/*
 * Copies LEN bytes of IN to OUT, each byte of a control character (C1 too), of what is no UTF-8, and backslash as
 * \xNN, always NUL-terminated, cut to fit SIZE. The result is well-formed UTF-8. Returns the length written. KEEP
 * names control bytes that pass.
 */
size_t str_escape(char *out, size_t size, const void *in, size_t len, const char *keep);

/*
 * How many of the first bytes of S, at most MAX and none behind a NUL, are of A-Z a-z 0-9 _ . and -: what names of
 * things are made of that become files, serial numbers or tags. The same in every locale.
 */
size_t str_span_name(const char *s, size_t max);

/* S of LEN bytes is such a name: 1 … MAX of them, not beginning with a dot. */
bool str_is_name(const char *s, size_t len, size_t max);

/* Edit distance, for "did you mean"; inputs longer than 64 bytes count as far (SIZE_MAX). */
size_t str_distance(const char *a, const char *b);

/* FNV-1a, 64 bit: spreads names over ranges. Not for security. */
uint64_t str_hash(const char *s);

/* Hex of LEN bytes into OUT (2 * LEN + 1 bytes). */
void str_hex(char *out, const void *in, size_t len);

/* The reverse, of exactly 2 * LEN digits as str_hex() writes them: 0 or -EINVAL. */
int str_unhex(void *out, const char *hex, size_t len);

/* A NULL-terminated vector of heap strings. */
void strv_free(char **v);
size_t strv_length(char *const *v);
int strv_push(char ***v, const char *s); /* copies S; 0 or -ENOMEM */
int strv_pushf(char ***v, const char *format, ...) __attribute__((format(printf, 2, 3)));

static inline void strv_freep(char ***v)
{
	strv_free(*v);
}
