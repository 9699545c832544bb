/*
 * What was read from a peer and not understood yet. There is memory for it only while there is something, and no more
 * than that needs: most messages are small, and who keeps a buffer for the largest one has it dirty for good.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct inbuf {
	uint8_t *data;    /* owned; NULL: nothing is there */
	size_t len, size; /* bytes */
};

/*
 * Reads once from FD, for as long as there are less than MAX bytes. How many more there are, 0 at the end; -EAGAIN,
 * -EINTR; -ENOBUFS: there are MAX; -errno.
 */
ssize_t inbuf_read(struct inbuf *b, int fd, size_t max);

/* Behind what is there. 0 or -ENOMEM. */
int inbuf_put(struct inbuf *b, const void *data, size_t len);

/* The first N bytes are done with. */
void inbuf_take(struct inbuf *b, size_t n);
void inbuf_finish(struct inbuf *b);
