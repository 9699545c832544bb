/*
 * Connections to the agent's port.
 *
 * Theory of operation. Anybody who reaches the hybrid socket can connect, so a connection may say one
 * thing only, AUTH, until it has shown the secret; it has 2 s for that, and at most
 * GUEST_CONN_UNAUTHENTICATED_MAX such connections exist: one more closes the oldest. After AUTH_OK
 * comes one request within 10 s, which says what the rest of the connection is. There may be
 * GUEST_SESSION_MAX sessions (guest-session-set.h), GUEST_FORWARD_MAX forwards and GUEST_COPY_MAX
 * copies; one more gets FAILED, and the control channel is not theirs to fill. A malformed or
 * misplaced frame closes its connection; a session that belonged to it has lost it.
 */
#pragma once

#include "guest-copy.h"
#include "guest-forward.h"
#include "guest-session-set.h"

#define GUEST_CONN_UNAUTHENTICATED_MAX 64 /* as many as a supervisor opens at once */

/* All that can be at once: those that say what they want, sessions, forwards that connect. */
#define GUEST_CONN_MAX (2 * GUEST_CONN_UNAUTHENTICATED_MAX + GUEST_SESSION_MAX + GUEST_FORWARD_MAX)

struct guest_conn;

struct guest_conn_set {
	struct guest_loop *loop;       /* borrowed */
	struct guest_reaper *reaper;   /* borrowed */
	const uint8_t *secret;         /* borrowed; AGENT_WIRE_SECRET bytes */
	void (*main_over)(void *user); /* a session with MAIN is over */
	void *user;                    /* borrowed */

	struct guest_source listener;
	int fd; /* owned */
	struct guest_session_set
		sessions; /* its home, main_over and user are the caller's to set */
	struct guest_forward_set forwards;
	struct guest_copy_set copies;
	size_t n, n_unauthenticated;
	bool held;
	LIST_HEAD(, guest_conn) conns;
};

/* Descriptors without forwards, which have two each: sessions with up to 6, and a reserve. */
#define GUEST_CONN_FDS (2 * GUEST_CONN_UNAUTHENTICATED_MAX + 6 * GUEST_SESSION_MAX + 64)

int guest_conn_set_init(struct guest_conn_set *set, int listen_fd_consume);
void guest_conn_set_finish(struct guest_conn_set *set);

/* Nothing is begun for anybody until it is let go again: who asks waits. What has begun goes on. */
void guest_conn_set_hold(struct guest_conn_set *set, bool hold);
