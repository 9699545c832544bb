/* A ring of bytes over memory that the caller owns; iovec views let it feed readv() and writev(). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

struct ring {
	uint8_t *data; /* borrowed */
	uint32_t size; /* bytes, a power of two */
	uint32_t head; /* free-running: next byte to read */
	uint32_t tail; /* free-running: next byte to write */
};

void ring_init(struct ring *r, void *data, uint32_t size);

static inline uint32_t ring_used(const struct ring *r)
{
	return r->tail - r->head;
}

static inline uint32_t ring_room(const struct ring *r)
{
	return r->size - ring_used(r);
}

/* The bytes to read, oldest first: fills 0 to 2 elements and returns how many. */
int ring_iov(const struct ring *r, struct iovec ret[static 2]);

/* Drops the N oldest bytes. */
void ring_consume(struct ring *r, uint32_t n);

/* Appends at most LEN bytes, as many as there is room for; returns how many. */
uint32_t ring_put(struct ring *r, const void *data, size_t len);
