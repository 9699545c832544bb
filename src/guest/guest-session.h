/*
 * An EXEC session: a process and its numbered streams. It knows the connection only as a place for
 * frames, which can go away and be replaced (ATTACH, agent-wire.h).
 *
 * Theory of operation. Input is kept in one window per session. Output is read from the process into
 * one window per stream, from which it is sent, and leaves it when it is acknowledged: a process whose
 * output nobody takes blocks, whether the connection is slow or lost. What a new connection has not
 * received is sent again from there. Without a connection the session waits as its owner has patience,
 * then it is hung up, which is final. A peer that sends beyond its window, ACKs what was not sent, or
 * attaches at an offset that it cannot have, is malformed.
 */
#pragma once

#include "guest-frames.h"
#include "guest-proc.h"

struct guest_session;

struct guest_session_owner {
	/* The session is over for any reason; destroy it here. */
	void (*over)(struct guest_session *s, void *user);
	/* Another connection has it now: forget it. Of the owner of a connection. */
	void (*moved)(struct guest_session *s, void *user);
	/* How many ms more one waits that was lost at LOST_USEC; 0: no more. Of that after detach. */
	uint64_t (*patience)(uint64_t lost_usec, void *user);
	void *user; /* borrowed */
};

/*
 * Starts what EXEC M asks for. FRAMES is borrowed until detach, hangup or destroy. On -errno nothing
 * was started and FAILED has been sent.
 */
int guest_session_create(const struct agent_wire_msg *m, struct guest_frames *frames,
	struct guest_loop *l, struct guest_reaper *reaper, const struct guest_session_owner *owner,
	struct guest_session **ret);
void guest_session_destroy(struct guest_session *s);

int guest_session_message(struct guest_session *s, const struct agent_wire_msg *m);
void guest_session_room(struct guest_session *s); /* the connection's backlog went down */

/* The connection is lost; S is OWNER's. */
void guest_session_detach(struct guest_session *s, const struct guest_session_owner *owner);

/*
 * ATTACH M: FRAMES and OWNER replace the former ones, ATTACHED is sent. -ESRCH: it was hung up;
 * -EBADMSG: these offsets cannot be; nothing has changed then.
 */
int guest_session_attach(struct guest_session *s, const struct agent_wire_msg *m,
	struct guest_frames *frames, const struct guest_session_owner *owner);

/* Its host is gone for good: SIGHUP, later SIGKILL; over() comes now or then. */
void guest_session_hangup(struct guest_session *s);

bool guest_session_is_main(const struct guest_session *s);
bool guest_session_has_id(const struct guest_session *s, const uint8_t id[static AGENT_WIRE_ID]);
bool guest_session_has_started(const struct guest_session *s); /* its command was executed */
const uint8_t *guest_session_id(const struct guest_session *s);

/* Since when it only keeps what is left of a process that has ended; 0: it does more than that. */
uint64_t guest_session_kept_since(const struct guest_session *s);
