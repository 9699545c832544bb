/*
 * Bytes between pairs of sockets, both ways, with half-close both ways and bounded buffers.
 *
 * Theory of operation. Sockets are watched edge-triggered, so a pair is pumped until neither side can
 * go on, RELAY_ROUNDS reads at a time; then it waits for its next turn. Bytes go from one socket to
 * the other by way of one buffer for all; only what the other side does not take is kept, one read
 * at most for each direction, and nothing more is read from that side until it is gone. So a side
 * that does not read stalls its own pair only, and memory is bounded by RELAY_PAIRS_MAX pairs with two
 * reads each, which are smaller when there are many.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "list.h"

struct loop;

#define RELAY_PAIRS_MAX   1024
#define RELAY_BUFFER      (64 * 1024)
#define RELAY_MANY        64 /* pairs, above which a read is of RELAY_BUFFER_MANY */
#define RELAY_BUFFER_MANY (16 * 1024)
#define RELAY_ROUNDS      16

struct relay {
	struct loop *loop;         /* borrowed */
	void (*ended)(void *user); /* a pair has ended */
	void *user;                /* borrowed */
	struct list pairs;         /* of relay_pair.link; owned */
	size_t n_pairs;
	uint8_t scratch[RELAY_BUFFER];
};

void relay_init(struct relay *r, struct loop *loop, void (*ended)(void *user), void *user);
void relay_finish(struct relay *r);

/* Adds a pair of non-blocking sockets, both taken over whatever is returned. -EBUSY: too many. */
int relay_add_consume(struct relay *r, int a, int b);
