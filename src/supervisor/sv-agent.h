/*
 * The agent in the guest, as the supervisor deals with it.
 *
 * The call home: whoever connects to v_1023 has 10 s to say HELLO with the incarnation's secret;
 * anything else costs that connection. At most SV_AGENT_STRANGERS of them wait at once. The newest
 * proven one of stage AGENT is the control channel. Sessions: the supervisor connects to the hybrid
 * socket, says CONNECT 1023, proves itself by AUTH and hands the descriptor to the caller.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct agent_wire_msg;
struct sv;
struct sv_agent;
struct control_call;

#define SV_AGENT_STRANGERS 8
#define SV_AGENT_HOMES_MAX 32 /* in a saved state */

/* LISTEN_FD (v_1023) is taken over whatever is returned. */
int sv_agent_create_consume(struct sv *sv, int listen_fd, struct sv_agent **ret);
bool sv_agent_is_ready(const struct sv_agent *a);

/*
 * 0, or -ENOTCONN: it never called. The refusal of the request comes as SV_AGENT_REFUSED. One whose channel is
 * lost is to be asked again when it has called again (SV_AGENT_READY); not within 2 s is a refusal.
 */
int sv_agent_stop(struct sv_agent *a, uint64_t deadline_usec);

/* Tells the guest the time of day and gives it fresh entropy. 0, or -ENOTCONN: its channel is not there. */
int sv_agent_renew(struct sv_agent *a);

/* Whether it speaks VERSION of the wire. 0; -ENOTCONN: its channel is not there; -EOPNOTSUPP: it does not. */
int sv_agent_can(const struct sv_agent *a, uint32_t version);

/* Has it set up an interface that comes: sv_link_told(). 0 or as above. */
int sv_agent_link(struct sv_agent *a);

/* Sends M, MOUNT or UNMOUNT: sv_share_told(). 0 or as above. */
int sv_agent_mount(struct sv_agent *a, const struct agent_wire_msg *m);

/*
 * FREEZE, or THAW: sv_snapshot_told() gets the answer. 0; -ENOTCONN: its channel is not there; -EOPNOTSUPP: it is of a
 * version that cannot.
 */
int sv_agent_hold(struct sv_agent *a, bool hold);

/*
 * Answers CALL with a connected descriptor, or an error: to the agent (PORT 0) after AUTH, else to
 * that vsock port of the guest as it is.
 */
void sv_agent_open(struct sv_agent *a, struct control_call *call, uint32_t port);

/* A connection to v_1023, and all of it: what goes on in the next image of this process. Borrowed. */
struct sv_agent_home_saved {
	int fd;
	bool proven, control;
	uint32_t version;       /* of the agent's wire */
	const uint8_t *pending; /* the beginning of a frame */
	size_t pending_len;
	uint64_t timeout_usec; /* CLOCK_MONOTONIC; 0: none */
};

struct sv_agent_saved {
	int fd;
	bool ready;
	uint32_t n_lines;
	size_t n_homes;
	struct sv_agent_home_saved homes[SV_AGENT_HOMES_MAX];
};

/* -EBUSY: a session is being opened, or a stop was asked for; -E2BIG: too many connections. */
int sv_agent_save(const struct sv_agent *a, struct sv_agent_saved *ret);

/* On success all descriptors are taken over. */
int sv_agent_resume(struct sv *sv, const struct sv_agent_saved *saved, struct sv_agent **ret);

/* CALL is gone: nobody is to be answered. */
void sv_agent_forget(struct sv_agent *a, struct control_call *call);
void sv_agent_destroy(struct sv_agent *a);
