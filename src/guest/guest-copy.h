/*
 * COPY_GET and COPY_PUT: a child process of the agent for each copy. It may block in file systems and on
 * the connection as it likes, stalls no session, and takes its memory with it. It keeps no descriptor
 * of the agent's but its connection.
 */
#pragma once

#include "agent-wire.h"
#include "guest-reap.h"

#define GUEST_COPY_MAX 16 /* at once; one more gets FAILED */

struct guest_copy_set {
	struct guest_child child[GUEST_COPY_MAX];
};

/*
 * Starts to do what M asks for on FD, which the caller closes on its side. -EAGAIN: too many are at
 * work; or another -errno.
 */
int guest_copy_start(struct guest_copy_set *set, const struct agent_wire_msg *m, int fd,
	struct guest_reaper *reaper);

void guest_copy_set_finish(struct guest_copy_set *set);
