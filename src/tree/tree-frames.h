/* The agent's frames on a connection that carries a copy, for both ends. */
#pragma once

#include "agent-wire.h"

#include <stdbool.h>

struct tree_frames {
	int fd;    /* borrowed */
	int flags; /* of recv(2): MSG_DONTWAIT, or 0 */
	size_t have;
	bool given;
	uint8_t buf[AGENT_WIRE_FRAME_MAX];
};

/*
 * 0 and *RET, whose views stay valid until the next call; -EAGAIN: not a whole one yet;
 * -ECONNRESET: the end; -EBADMSG.
 */
int tree_frames_read(struct tree_frames *f, struct agent_wire_msg *ret);

/* Sends a small message (no COPY_DATA), waiting for room. */
int tree_frames_send(int fd, const struct agent_wire_msg *m);
