/*
 * Bytes between pairs of sockets, both ways, with half-close both ways and bounded buffers.
 *
 * Theory of operation. Sockets are watched edge-triggered, so a pair is pumped until neither side can
 * go on, RELAY_ROUNDS reads at a time; then it waits for its next turn. Bytes go from one socket to
 * the other by splice() through one pipe for all; only what the other side does not take is kept, one read
 * at most for each direction, and nothing more is read from that side until it is gone. So a side
 * that does not read stalls its own pair only, and memory is bounded by RELAY_PAIRS_MAX pairs with two
 * reads each, which are smaller when there are many.
 *
 * What is kept stays in its pipe, and the relay takes another; when it has RELAY_PIPES_MAX it is copied out
 * of the pipe to the heap.
 *
 * Invariant: between two steps the relay's own pipe is empty. What is in it belongs to one flow, and must never reach
 * another: a flow that breaks in the middle takes the pipe with it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "list.h"
#include "relay-pipe.h"

struct loop;

#define RELAY_PAIRS_MAX 1024
#define RELAY_READ      RELAY_PIPE_BYTES
#define RELAY_MANY      64 /* pairs, above which a read is of RELAY_READ_MANY */
#define RELAY_READ_MANY (16 * 1024)
#define RELAY_ROUNDS    8

struct relay {
	struct loop *loop;         /* borrowed */
	void (*ended)(void *user); /* a pair has ended */
	void *user;                /* borrowed */
	struct list pairs;         /* of relay_pair.link; owned */
	size_t n_pairs;
	struct relay_pipes pipes;
	struct relay_pipe pipe; /* owned; empty between two steps */
};

/* 0 or -errno; relay_finish() is fine after both. */
int relay_init(struct relay *r, struct loop *loop, void (*ended)(void *user), void *user);
void relay_finish(struct relay *r);

/* Adds a pair of non-blocking sockets, both taken over whatever is returned. -EBUSY: too many. */
int relay_add_consume(struct relay *r, int a, int b);
