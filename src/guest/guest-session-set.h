/*
 * The sessions of the agent, by their ids, whether they have a connection or not.
 *
 * Limits: GUEST_SESSION_MAX at once, the lost and the hung up ones included, each with at most three
 * windows of memory. When they are all taken, the one that has kept an exit status for the longest
 * without a connection makes room. The last GUEST_SESSION_PAST ids of sessions that are over are
 * remembered, so that an EXEC that arrives twice cannot run its command twice.
 *
 * Patience. A lost connection means that the client is gone, or that the vsock device was replaced;
 * the guest's end of both looks alike. But a replaced device has lost the call home too. So a lost
 * session waits AGENT_WIRE_GRACE_MS, and if the call home was lost about then, until that stands again
 * and AGENT_WIRE_RETURN_MS longer.
 */
#pragma once

#include "guest-session.h"

#define GUEST_SESSION_MAX  64
#define GUEST_SESSION_PAST 256

/* The call home, as far as patience needs it. */
struct guest_session_home {
	bool stands;
	uint64_t lost_usec;   /* when it was lost last; 0: never */
	uint64_t stands_usec; /* since when it stands */
};

struct guest_session_set {
	struct guest_loop *loop;     /* borrowed */
	struct guest_reaper *reaper; /* borrowed */
	struct guest_session_home (*home)(void *user);
	void (*main_over)(void *user); /* a MAIN session without a connection is over */
	void *user;                    /* borrowed */

	struct guest_session *sessions[GUEST_SESSION_MAX]; /* owned; the first N */
	size_t n;
	uint8_t past[GUEST_SESSION_PAST][AGENT_WIRE_ID];
	size_t n_past; /* ever */
};

/* -EEXIST: the id is known; -EAGAIN: too many; FAILED has been sent, as after any other -errno. */
int guest_session_set_exec(struct guest_session_set *set, const struct agent_wire_msg *m,
	struct guest_frames *frames, const struct guest_session_owner *owner,
	struct guest_session **ret);

/* -ENOENT, -ESRCH: FAILED has been sent; -EBADMSG: the connection is to be closed. */
int guest_session_set_attach(struct guest_session_set *set, const struct agent_wire_msg *m,
	struct guest_frames *frames, const struct guest_session_owner *owner,
	struct guest_session **ret);

/* S has lost its connection; HANGUP: for good. */
void guest_session_set_lost(struct guest_session_set *set, struct guest_session *s, bool hangup);

/* S is over: forgets and destroys it. */
void guest_session_set_over(struct guest_session_set *set, struct guest_session *s);

void guest_session_set_finish(struct guest_session_set *set);
