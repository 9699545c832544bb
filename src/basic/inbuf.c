#include "inbuf.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INBUF_FIRST 512 /* bytes */

/* Room for WANT bytes in all, made in steps of the double. */
static int inbuf_grow(struct inbuf *b, size_t want)
{
	size_t size = b->size ? b->size : INBUF_FIRST;
	uint8_t *bigger;

	while (size < want)
		size *= 2;
	if (size == b->size)
		return 0;
	bigger = realloc(b->data, size);
	if (!bigger)
		return -ENOMEM;
	b->data = bigger;
	b->size = size;
	return 0;
}

ssize_t inbuf_read(struct inbuf *b, int fd, size_t max)
{
	size_t room;
	ssize_t n;
	int r;

	if (b->len >= max)
		return -ENOBUFS;
	r = inbuf_grow(b, b->len + 1);
	if (r < 0)
		return r;
	room = (b->size < max ? b->size : max) - b->len;
	n = read(fd, b->data + b->len, room);
	if (n > 0)
		b->len += (size_t)n;
	if (n < 0)
		n = -errno;
	if (b->len == 0)
		inbuf_finish(b);
	return n;
}

int inbuf_put(struct inbuf *b, const void *data, size_t len)
{
	int r = len > 0 ? inbuf_grow(b, b->len + len) : 0;

	if (r < 0 || len == 0)
		return r;
	memcpy(b->data + b->len, data, len);
	b->len += len;
	return 0;
}

void inbuf_take(struct inbuf *b, size_t n)
{
	assert(n <= b->len);
	b->len -= n;
	if (b->len == 0)
		inbuf_finish(b);
	else
		memmove(b->data, b->data + n, b->len);
}

void inbuf_finish(struct inbuf *b)
{
	free(b->data);
	*b = (struct inbuf){ 0 };
}
