/*
 * Connections to the agent's port.
 *
 * Theory of operation. Anybody who reaches the hybrid socket can connect, so a connection may say one
 * thing only, AUTH, until it has shown the secret; it has 2 s for that, and at most
 * GUEST_CONN_UNAUTHENTICATED_MAX such connections exist: one more closes the oldest. After AUTH_OK
 * comes one request, which says what the rest of the connection is. A malformed or misplaced frame
 * closes its connection; the session that belonged to it is treated as one whose host has gone.
 */
#pragma once

#include "guest-session.h"

#define GUEST_CONN_UNAUTHENTICATED_MAX 16
#define GUEST_CONN_MAX                 128 /* times 6 descriptors stays below RLIMIT_NOFILE's 1024 */

struct guest_conn;

struct guest_conn_set {
	struct guest_loop *loop;       /* borrowed */
	struct guest_reaper *reaper;   /* borrowed */
	const uint8_t *secret;         /* borrowed; AGENT_WIRE_SECRET bytes */
	void (*main_over)(void *user); /* a session with MAIN is over */
	void *user;                    /* borrowed */

	struct guest_source listener;
	int fd; /* owned */
	size_t n, n_unauthenticated, n_sessions;
	LIST_HEAD(, guest_conn) conns;
};

int guest_conn_set_init(struct guest_conn_set *set, int listen_fd_consume);
void guest_conn_set_finish(struct guest_conn_set *set);
