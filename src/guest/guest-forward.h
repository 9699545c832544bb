/*
 * FORWARD: a connection's bytes to a service in the guest and back, each direction with its own end.
 *
 * Bytes go through one buffer for all; what the other side does not take is kept, one read at most a
 * direction, and no more is read before it is gone. Reads are smaller when there are many forwards,
 * so GUEST_FORWARD_MAX of them that all stall hold 40 MiB at most.
 */
#pragma once

#include "guest-frames.h"

#define GUEST_FORWARD_MAX        1024        /* connecting or open; one more gets FAILED */
#define GUEST_FORWARD_BYTES      (64 * 1024) /* in one read */
#define GUEST_FORWARD_MANY       64          /* forwards, above which it is this: */
#define GUEST_FORWARD_BYTES_MANY (16 * 1024)

struct guest_forward;

struct guest_forward_set {
	struct guest_loop *loop; /* borrowed */
	size_t n, max;           /* max: GUEST_FORWARD_MAX, or what the descriptors suffice for */
	uint8_t scratch[GUEST_FORWARD_BYTES];
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
