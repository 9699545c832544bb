#include "decompress.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "config.h"

#if HAVE_LZ4
#include <lz4.h>
#endif
#if HAVE_LZMA
#include <lzma.h>
#endif
#if HAVE_ZSTD
#include <zstd.h>
#endif

/* as the kernel's scripts write it (lz4 -l): blocks that hold this much, each with its length */
#define DECOMPRESS_LZ4_BLOCK (8U << 20)

static const struct {
	const char *format;
	unsigned char magic[8];
	size_t len;
} decompress_magics[] = {
	{ "lz4", { 0x02, 0x21, 0x4c, 0x18 }, 4 },
	{ "zstd", { 0x28, 0xb5, 0x2f, 0xfd }, 4 },
	{ "xz", { 0xfd, '7', 'z', 'X', 'Z', 0 }, 6 },
	{ "gzip", { 0x1f, 0x8b }, 2 },
	{ "bzip2", { 'B', 'Z', 'h' }, 3 },
	{ "lzo", { 0x89, 'L', 'Z', 'O' }, 4 },
};

const char *decompress_format(const void *data, size_t len)
{
	for (size_t i = 0; i < ARRAY_SIZE(decompress_magics); i++) {
		if (len >= decompress_magics[i].len &&
			memcmp(data, decompress_magics[i].magic, decompress_magics[i].len) == 0)
			return decompress_magics[i].format;
	}
	return NULL;
}

struct sink {
	char *data; /* owned */
	size_t len, size, max;
};

/* Makes room for MORE bytes, or for as many as MAX allows: -EFBIG when that is none. */
static int sink_grow(struct sink *s, size_t more)
{
	size_t size = s->size ? s->size : 1 << 20;
	char *p;

	if (s->len >= s->max)
		return -EFBIG;
	while (size < s->len + more && size < s->max)
		size *= 2;
	if (size > s->max)
		size = s->max;
	if (size == s->size)
		return 0;
	p = realloc(s->data, size);
	if (!p)
		return -ENOMEM;
	s->data = p;
	s->size = size;
	return 0;
}

#if HAVE_LZ4
static int decompress_lz4(const unsigned char *in, size_t len, struct sink *s)
{
	size_t at = 4;

	while (at + 4 <= len) {
		uint32_t n = (uint32_t)in[at] | (uint32_t)in[at + 1] << 8 |
			     (uint32_t)in[at + 2] << 16 | (uint32_t)in[at + 3] << 24;
		int got, r;

		if (n == 0x184c2102) { /* another frame */
			at += 4;
			continue;
		}
		/* what does not fit behind the blocks is not a block: the size that the kernel appends */
		if (n == 0 || n > len - at - 4)
			break;
		r = sink_grow(s, DECOMPRESS_LZ4_BLOCK);
		if (r < 0)
			return r;
		got = LZ4_decompress_safe((const char *)in + at + 4, s->data + s->len, (int)n,
			(int)(s->size - s->len > INT32_MAX ? INT32_MAX : s->size - s->len));
		if (got < 0)
			return s->size - s->len < DECOMPRESS_LZ4_BLOCK ? -EFBIG : -EBADMSG;
		s->len += (size_t)got;
		at += 4 + n;
	}
	return s->len ? 0 : -EBADMSG;
}
#endif

#if HAVE_ZSTD
static void decompress_free_zstd(ZSTD_DStream *z)
{
	ZSTD_freeDStream(z);
}

DEFINE_CLEANUP(ZSTD_DStream *, decompress_free_zstd);

static int decompress_zstd(const unsigned char *in, size_t len, struct sink *s)
{
	CLEANUP(decompress_free_zstdp) ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer from = { in, len, 0 };

	if (!z)
		return -ENOMEM;
	for (;;) {
		ZSTD_outBuffer to;
		size_t before = from.pos, left;
		int r = sink_grow(s, 1 << 20);

		if (r < 0)
			return r;
		to = (ZSTD_outBuffer){ s->data, s->size, s->len };
		left = ZSTD_decompressStream(z, &to, &from);
		if (ZSTD_isError(left) || (left && to.pos == s->len && from.pos == before))
			return -EBADMSG;
		s->len = to.pos;
		if (left == 0)
			return 0;
	}
}
#endif

#if HAVE_LZMA
static int decompress_xz(const unsigned char *in, size_t len, struct sink *s)
{
	lzma_stream z = LZMA_STREAM_INIT;
	lzma_ret e = LZMA_OK;
	int r = 0;

	if (lzma_stream_decoder(&z, UINT64_MAX, 0) != LZMA_OK)
		return -ENOMEM;
	z.next_in = in;
	z.avail_in = len;
	while (e == LZMA_OK && r == 0) {
		r = sink_grow(s, 1 << 20);
		if (r < 0)
			break;
		z.next_out = (unsigned char *)s->data + s->len;
		z.avail_out = s->size - s->len;
		e = lzma_code(&z, LZMA_RUN);
		s->len = s->size - z.avail_out;
	}
	lzma_end(&z);
	if (r == 0 && e != LZMA_STREAM_END)
		r = e == LZMA_MEM_ERROR ? -ENOMEM : -EBADMSG;
	return r;
}
#endif

static int decompress_by_format(const char *format, const void *data, size_t len, struct sink *s)
{
#if HAVE_LZ4
	if (strcmp(format, "lz4") == 0)
		return decompress_lz4(data, len, s);
#endif
#if HAVE_ZSTD
	if (strcmp(format, "zstd") == 0)
		return decompress_zstd(data, len, s);
#endif
#if HAVE_LZMA
	if (strcmp(format, "xz") == 0)
		return decompress_xz(data, len, s);
#endif
	return -EOPNOTSUPP;
}

int decompress(const void *data, size_t len, size_t max, char **ret, size_t *ret_len)
{
	const char *format = decompress_format(data, len);
	struct sink s = { .max = max };
	int r = format ? decompress_by_format(format, data, len, &s) : -EOPNOTSUPP;

	if (r < 0) {
		free(s.data);
		return r;
	}
	*ret = s.data;
	*ret_len = s.len;
	return 0;
}
