/*
 * FORWARD: a connection's bytes to a service in the guest and back, each direction with one bounded
 * buffer and its own end.
 */
#pragma once

#include "guest-frames.h"

#define GUEST_FORWARD_MAX 128 /* connecting or open; one more gets FAILED */

struct guest_forward;

struct guest_forward_set {
	struct guest_loop *loop; /* borrowed */
	size_t n;
};

/*
 * Starts to connect to what M asks for. Answers on FRAMES, which stays the caller's; OPENED is called
 * once: with 0 after FORWARD_OK, and the forward has taken the descriptor and lives on alone until
 * both ends have ended; or with -errno after FAILED, and the forward is gone. The caller finishes
 * FRAMES either way. -errno: FAILED has been sent, OPENED is not called.
 */
int guest_forward_create(const struct agent_wire_msg *m, struct guest_frames *frames,
	struct guest_forward_set *set, void (*opened)(void *user, int error), void *user,
	struct guest_forward **ret);
void guest_forward_destroy(struct guest_forward *f);
