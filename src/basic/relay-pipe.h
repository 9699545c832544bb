/*
 * The pipes of a relay: bytes go through one from socket to socket by splice(), so that they are never copied here.
 * There are never more than RELAY_PIPES_MAX, whatever the number of connections.
 */
#pragma once

#include <stdbool.h>

#define RELAY_PIPES_MAX  32
#define RELAY_PIPE_BYTES (256 * 1024) /* asked for; an unprivileged user may get less */

struct relay_pipe {
	int in, out; /* owned; -EBADF: none */
};

struct relay_pipes {
	struct relay_pipe idle[RELAY_PIPES_MAX]; /* owned: empty ones */
	unsigned n_idle, n_all, max; /* MAX is the caller's to set: 1 to RELAY_PIPES_MAX */
};

#define RELAY_PIPE_NONE ((struct relay_pipe){ -EBADF, -EBADF })

/* An empty one, now the caller's. 0, -ENOSPC: all are in use, or -errno. */
int relay_pipe_take(struct relay_pipes *p, struct relay_pipe *ret);

/* Back from the caller; EMPTY: it may serve another. Leaves RELAY_PIPE_NONE. */
void relay_pipe_give(struct relay_pipes *p, struct relay_pipe *pipe, bool empty);

void relay_pipes_finish(struct relay_pipes *p);
