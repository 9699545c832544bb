#include "wire.h"

#include <errno.h>

static void wire_fail(struct wire *w, int encode_error)
{
	if (w->error == 0)
		w->error = w->out ? encode_error : -EBADMSG;
}

/* The offset of N bytes that exist, or -1. */
static ssize_t wire_take(struct wire *w, size_t n)
{
	size_t pos = w->pos;

	if (w->error < 0)
		return -1;
	if (n > w->size - w->pos) {
		wire_fail(w, -ENOBUFS);
		return -1;
	}
	w->pos += n;
	return (ssize_t)pos;
}

static void wire_uint(struct wire *w, uint64_t *v, size_t n)
{
	ssize_t at = wire_take(w, n);
	uint64_t x = 0;

	if (w->out) {
		for (size_t i = 0; at >= 0 && i < n; i++)
			w->out[(size_t)at + i] = (uint8_t)(*v >> (8 * i));
		return;
	}
	for (size_t i = 0; at >= 0 && i < n; i++)
		x |= (uint64_t)w->in[(size_t)at + i] << (8 * i);
	*v = x;
}

#define WIRE_DEFINE_UINT(name, type)                                                               \
	void name(struct wire *w, type *v)                                                         \
	{                                                                                          \
		uint64_t x = *v;                                                                   \
		wire_uint(w, &x, sizeof *v);                                                       \
		*v = (type)x;                                                                      \
	}

WIRE_DEFINE_UINT(wire_u8, uint8_t)
WIRE_DEFINE_UINT(wire_u16, uint16_t)
WIRE_DEFINE_UINT(wire_u32, uint32_t)
WIRE_DEFINE_UINT(wire_u64, uint64_t)

void wire_range8(struct wire *w, uint8_t *v, uint8_t min, uint8_t max)
{
	wire_u8(w, v);
	if (*v < min || *v > max)
		wire_fail(w, -EINVAL);
}

void wire_range32(struct wire *w, uint32_t *v, uint32_t min, uint32_t max)
{
	wire_u32(w, v);
	if (*v < min || *v > max)
		wire_fail(w, -EINVAL);
}

void wire_bytes(struct wire *w, void *p, size_t n)
{
	ssize_t at = wire_take(w, n);

	if (w->out) {
		if (at >= 0)
			memcpy(w->out + at, p, n);
		return;
	}
	if (at >= 0)
		memcpy(p, w->in + at, n);
	else
		memset(p, 0, n);
}

/* N bytes in place: copied out when encoding, pointed at when decoding. */
static void wire_view(struct wire *w, const void **p, size_t n)
{
	ssize_t at = wire_take(w, n);

	if (!w->out)
		*p = at >= 0 ? w->in + at : NULL;
	else if (at >= 0 && n > 0)
		memcpy(w->out + at, *p, n);
}

void wire_str(struct wire *w, struct wire_str *v, uint32_t max)
{
	const void *p = v->s;

	wire_range32(w, &v->len, 0, max);
	if (w->error == 0)
		wire_view(w, &p, v->len);
	if (w->error == 0 && v->len > 0 && memchr(p, 0, v->len))
		wire_fail(w, -EINVAL);
	if (w->error < 0)
		*v = (struct wire_str){};
	else
		v->s = p;
}

struct wire_strv wire_strv_from(const char *const *v)
{
	struct wire_strv r = { .v = v };

	while (v && v[r.n])
		r.n++;
	return r;
}

static void wire_strv_encode(struct wire *w, struct wire_strv *v)
{
	const void *p = v->packed;

	if (p) {
		wire_view(w, &p, v->packed_bytes);
		return;
	}
	for (uint32_t i = 0; i < v->n; i++) {
		struct wire_str s = wire_str_from(v->v[i]);

		wire_str(w, &s, UINT32_MAX);
	}
}

void wire_strv(struct wire *w, struct wire_strv *v, uint32_t max)
{
	size_t start;

	wire_range32(w, &v->n, 0, max);
	if (w->out) {
		wire_strv_encode(w, v);
		return;
	}
	start = w->pos;
	for (uint32_t i = 0; w->error == 0 && i < v->n; i++) {
		struct wire_str s = {};

		wire_str(w, &s, UINT32_MAX);
	}
	*v = (struct wire_strv){};
	if (w->error == 0) {
		v->packed = w->in + start;
		v->packed_bytes = w->pos - start;
		struct wire count = { .in = w->in, .pos = start - 4, .size = start };
		wire_u32(&count, &v->n);
	}
}

bool wire_strv_next(const struct wire_strv *v, size_t *pos, struct wire_str *ret)
{
	struct wire w = { .in = v->packed, .pos = *pos, .size = v->packed_bytes };

	if (!v->packed || *pos >= v->packed_bytes)
		return false;
	wire_str(&w, ret, UINT32_MAX);
	*pos = w.pos;
	return w.error == 0;
}

void wire_rest(struct wire *w, const void **p, uint32_t *n, uint32_t max)
{
	if (!w->out)
		*n = (uint32_t)(w->size - w->pos);
	if (*n > max)
		wire_fail(w, -EINVAL);
	wire_view(w, p, *n);
	if (w->error < 0 && !w->out)
		*n = 0;
}

int wire_finish(struct wire *w)
{
	if (!w->out && w->error == 0 && w->pos != w->size)
		w->error = -EBADMSG;
	return w->error;
}
