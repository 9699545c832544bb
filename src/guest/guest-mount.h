/*
 * What comes while the guest runs is mounted where the host says: a directory of the host (virtio-fs), an image's files
 * (EROFS in persistent memory).
 *
 * Theory of operation. A child does it, one after the other, and its exit status is an errno. It waits for the device,
 * whose driver may be loaded only now, by the kernel's events; and it may hang, mounting or unmounting, for as long as
 * what is behind the device does, which must not hold up the agent. What was mounted is known by its path and its device:
 * what somebody else mounted is left alone, and what somebody unmounted is not believed in. Nothing of this outlives the
 * agent.
 */
#pragma once

#include <sys/types.h>

#include "agent-wire.h"
#include "guest-loop.h"
#include "guest-reap.h"

#define GUEST_MOUNT_MAX       16 /* as many as a VM has slots for devices that come later */
#define GUEST_MOUNT_ASKED_MAX 8

struct guest_mount_point {
	char *path; /* owned; NULL: a free place */
	uint8_t kind;
	dev_t dev;
	struct guest_child
		leaving; /* whose unmount hangs: the path may be free, the device is not */
};

struct guest_mount_asked;

struct guest_mount {
	struct guest_loop *loop;     /* borrowed */
	struct guest_reaper *reaper; /* borrowed */
	/* REQUEST (enum agent_wire_type) is done: ERROR is 0 or a positive errno */
	void (*done)(void *user, uint8_t request, int error);
	void *user; /* borrowed */

	struct guest_mount_point points[GUEST_MOUNT_MAX];
	struct guest_mount_asked *asked[GUEST_MOUNT_ASKED_MAX]; /* owned; the first is being done */
	size_t n_asked;
	struct guest_child child;
	struct guest_timer timer;
};

/*
 * The fields above the gap are the caller's. M is MOUNT or UNMOUNT; DONE may come before this returns. What is the same
 * as that which is being done has no DONE of its own.
 */
void guest_mount_ask(struct guest_mount *g, const struct agent_wire_msg *m);

/* What is mounted stays. */
void guest_mount_finish(struct guest_mount *g);
