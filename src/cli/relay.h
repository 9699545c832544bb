/*
 * Bytes between pairs of sockets, both ways, with half-close both ways and bounded buffers.
 *
 * Each pair has one buffer a direction; a side that does not read stalls its own pair only.
 */
#pragma once

#include <stddef.h>

struct relay;

#define RELAY_PAIRS_MAX 1024

int relay_create(struct relay **ret);

/* Adds a pair of non-blocking sockets, both taken over whatever is returned. -EBUSY: too many. */
int relay_add_consume(struct relay *r, int a, int b);

/* Waits at most MS (-1: for ever) for LISTEN_FD to be readable: 1; or serves pairs meanwhile: 0. */
int relay_turn(struct relay *r, int listen_fd, int ms);
void relay_destroy(struct relay *r);

static inline void relay_destroyp(struct relay **r)
{
	relay_destroy(*r);
}
