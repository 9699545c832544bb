#include "ring.h"

#include <assert.h>
#include <string.h>

void ring_init(struct ring *r, void *data, uint32_t size)
{
	assert(size && !(size & (size - 1)));
	*r = (struct ring){ .data = data, .size = size };
}

int ring_iov(const struct ring *r, struct iovec ret[static 2])
{
	uint32_t used = ring_used(r), at = r->head & (r->size - 1);
	uint32_t first = used < r->size - at ? used : r->size - at;

	if (used == 0)
		return 0;
	ret[0] = (struct iovec){ r->data + at, first };
	if (first == used)
		return 1;
	ret[1] = (struct iovec){ r->data, used - first };
	return 2;
}

void ring_consume(struct ring *r, uint32_t n)
{
	assert(n <= ring_used(r));
	r->head += n;
}

uint32_t ring_put(struct ring *r, const void *data, size_t len)
{
	uint32_t n = len < ring_room(r) ? (uint32_t)len : ring_room(r);
	uint32_t at = r->tail & (r->size - 1);
	uint32_t first = n < r->size - at ? n : r->size - at;

	memcpy(r->data + at, data, first);
	memcpy(r->data, (const uint8_t *)data + first, n - first);
	r->tail += n;
	return n;
}
