/*
 * A session's connection to the agent, and another one when it is lost.
 *
 * Theory of operation. Frames go out through a queue, so that nothing here blocks. When the connection
 * ends, the supervisor is asked for another (OpenAgent on a control connection of our own), again and
 * again for SESSION_LINK_LOST_USEC; what the session then says on it is the session's matter. It is
 * given up at once when the supervisor is gone, and the VM with it, or when the agent is too old to
 * know ATTACH.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent-wire.h"

#define SESSION_LINK_LOST_USEC (UINT64_C(10) * 1000000) /* until the session goes on */
#define SESSION_LINK_QUEUE_MAX (4 * AGENT_WIRE_FRAME_MAX)

struct json_object;
struct pollfd;

enum session_link_news {
	SESSION_LINK_NOTHING,
	SESSION_LINK_FRAMES, /* some may be there: session_link_next() */
	SESSION_LINK_LOST,   /* frames of before are dropped, in and out */
	SESSION_LINK_OPENED, /* say what it is for */
	SESSION_LINK_GONE,   /* for good; text says why */
};

struct session_link {
	const char *vm_name; /* borrowed */
	uint32_t version;    /* of the agent */
	int fd;              /* owned; -EBADF: lost */
	int control;         /* owned; while another connection is asked for */
	bool asked;          /* OpenAgent is under way */
	bool is_first;       /* no other was asked for yet */
	bool settled;        /* the session goes on with this connection */
	uint64_t lost_usec;  /* since when it does not */
	uint64_t next_usec;  /* lost: when to ask again */
	const char *text;
	size_t in_len, in_used, out_len;
	uint8_t in[AGENT_WIRE_FRAME_MAX];
	uint8_t out[SESSION_LINK_QUEUE_MAX];
};

/* The agent's version, of OpenAgent's reply. */
uint32_t session_link_version(struct json_object *reply);

void session_link_init(
	struct session_link *l, const char *vm_name, int fd_consume, uint32_t version);

/* HANGUP tells the agent that nobody comes back. */
void session_link_finish(struct session_link *l, bool hangup);

/* 0; -ENOBUFS, -EINVAL: M cannot be encoded. While the connection is lost, M is dropped. */
int session_link_send(struct session_link *l, const struct agent_wire_msg *m);
bool session_link_has_room(const struct session_link *l);

/* What to wait for, and until when at most (UINT64_MAX: for ever). */
struct pollfd session_link_poll(const struct session_link *l);
uint64_t session_link_deadline(const struct session_link *l);

/* After the poll: what has happened. */
enum session_link_news session_link_turn(struct session_link *l, short revents);

/* The next whole frame: its length; 0: none; -EBADMSG. Views are valid until the next call. */
ssize_t session_link_next(struct session_link *l, struct agent_wire_msg *ret);

/* The session goes on. */
void session_link_settle(struct session_link *l);

/* As if the connection had ended: another one is asked for. */
void session_link_drop(struct session_link *l);
