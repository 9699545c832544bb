/*
 * One cursor for both directions: a message's layout is written down once, as a list of wire_…()
 * calls, and the same list encodes (out set) or decodes (in set). Little endian, no padding. The
 * first error sticks; after it nothing is read or written and decoded values are zero. Pure: no
 * allocation, no I/O. Decoded views point into the input buffer.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

struct wire {
	uint8_t *out;      /* borrowed; encoding when set */
	const uint8_t *in; /* borrowed; decoding when set */
	size_t pos, size;
	int error; /* 0; -EBADMSG decoding; -ENOBUFS or -EINVAL encoding */
};

/* Not terminated. No NUL inside once it has passed wire_str(). */
struct wire_str {
	const char *s; /* borrowed */
	uint32_t len;
};

/* A vector of strings. Encoding takes V, unless PACKED is set; decoding sets PACKED. */
struct wire_strv {
	uint32_t n;
	const char *const *v;  /* borrowed */
	const uint8_t *packed; /* borrowed: n × {u32 length, bytes}, already checked */
	size_t packed_bytes;
};

static inline struct wire_str wire_str_from(const char *s)
{
	return (struct wire_str){ s, s ? (uint32_t)strlen(s) : 0 };
}

struct wire_strv wire_strv_from(const char *const *v); /* NULL-terminated, or NULL */

/* Steps through a decoded vector; *POS starts at 0. False at its end. */
bool wire_strv_next(const struct wire_strv *v, size_t *pos, struct wire_str *ret);

void wire_u8(struct wire *w, uint8_t *v);
void wire_u16(struct wire *w, uint16_t *v);
void wire_u32(struct wire *w, uint32_t *v);
void wire_u64(struct wire *w, uint64_t *v);
void wire_range8(struct wire *w, uint8_t *v, uint8_t min, uint8_t max);
void wire_range32(struct wire *w, uint32_t *v, uint32_t min, uint32_t max);
void wire_bytes(struct wire *w, void *p, size_t n);
void wire_str(struct wire *w, struct wire_str *v, uint32_t max);
void wire_strv(struct wire *w, struct wire_strv *v, uint32_t max);

/* All that is left of the payload, at most MAX bytes. */
void wire_rest(struct wire *w, const void **p, uint32_t *n, uint32_t max);

/* 0, or the error; bytes left over in a decoded payload are one. */
int wire_finish(struct wire *w);
