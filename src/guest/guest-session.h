/*
 * An EXEC session: a process and its numbered streams. It knows the connection only as a place for
 * frames, which can go away; what a later ATTACH needs (id, offsets, exit status) is all here.
 *
 * Limits: input is kept in one window per session, output is read from the process only while the
 * window is open and the connection's backlog is small. A peer that sends beyond its window, or ACKs
 * what was not sent, is malformed.
 */
#pragma once

#include "guest-frames.h"
#include "guest-proc.h"

struct guest_session;

struct guest_session_owner {
	/* The session is over for any reason; destroy it here. */
	void (*over)(struct guest_session *s, void *user);
	void *user; /* borrowed */
};

/*
 * Starts what EXEC M asks for. FRAMES is borrowed until detach or destroy. On -errno nothing was
 * started and FAILED has been sent.
 */
int guest_session_create(const struct agent_wire_msg *m, struct guest_frames *frames,
	struct guest_loop *l, struct guest_reaper *reaper, const struct guest_session_owner *owner,
	struct guest_session **ret);
void guest_session_destroy(struct guest_session *s);

int guest_session_message(struct guest_session *s, const struct agent_wire_msg *m);
void guest_session_room(struct guest_session *s);   /* the connection's backlog went down */
void guest_session_detach(struct guest_session *s); /* the connection is lost */

bool guest_session_is_main(const struct guest_session *s);
void guest_session_set_owner(struct guest_session *s, const struct guest_session_owner *owner);
