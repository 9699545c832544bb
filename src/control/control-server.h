/*
 * The control socket's server: varlink calls to methods, replies when they are known.
 *
 * One call at a time per connection; further ones wait in the socket. A call may be answered at once
 * or later; when its connection goes first, the method's owner is told (gone) and must forget it.
 * Bounds: CONTROL_CONNECTIONS_MAX connections, VARLINK_MESSAGE_MAX bytes a message, and an output
 * queue of one reply; a peer that does not read it is dropped after CONTROL_SEND_USEC. Reading methods are for
 * everyone who can connect, the others for root, the supervisor's own user and group uvms, by
 * SO_PEERCRED and SO_PEERGROUPS.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef struct sd_event sd_event;
typedef struct sd_event_source sd_event_source;
struct json_object;
struct control_server;
struct control_call;

#define CONTROL_CONNECTIONS_MAX 64
#define CONTROL_SEND_USEC       (5 * 1000000)
#define CONTROL_PACE            100 /* connections in CONTROL_PACE_USEC */
#define CONTROL_PACE_USEC       (100 * 1000)

struct control_method {
	const char *name;
	bool reads_only;
	void (*fn)(struct control_call *call, struct json_object *parameters, void *userdata);
};

struct control_hooks {
	const struct control_method *methods; /* borrowed; ends with a NULL name */
	const char *description;              /* the interface in varlink's language */
	void (*gone)(
		struct control_call *call, void *userdata); /* an unanswered call's peer left */
	void (*owner_gone)(void *userdata); /* the adopted owner's connection ended */
	void *userdata;
};

/* HOOKS is borrowed. Serves nobody until it listens or adopts. */
int control_server_create(
	sd_event *event, const struct control_hooks *hooks, struct control_server **ret);

/* For any socket that is listened on: whoever calls without end, or finds no descriptor free, costs a bounded time. */
int control_server_pace(sd_event_source *listening);

/* LISTEN_FD is taken over whatever is returned. */
int control_server_listen_consume(struct control_server *s, int listen_fd);

/* Serves a connection that was inherited; when it ends, hooks.owner_gone is called. */
int control_server_adopt_consume(struct control_server *s, int fd);

/*
 * Each ends CALL; PARAMETERS is consumed. A descriptor (borrowed, or -EBADF) goes beside the reply.
 */
void control_call_reply(struct control_call *call, struct json_object *parameters, int fd);
void control_call_error(struct control_call *call, int error, struct json_object *words);

/* The caller's process when it connected, as the kernel has it; 0: not known. */
pid_t control_call_pid(const struct control_call *call);

/* Whether the caller is root or this process's own user, not only one of the group that may write. */
bool control_call_is_own_user(const struct control_call *call);

/* A connection as the next image of this process can go on with it. */
struct control_saved {
	int fd, out_fd; /* borrowed; OUT_FD goes with the first byte of OUT, -EBADF: none */
	bool may_write, owner;
	bool busy, oneway;    /* a call is to be answered, or not */
	const char *in, *out; /* borrowed: read and not obeyed yet, to be sent */
	size_t in_len, out_len;
	struct control_call *call; /* borrowed: which it is */
};

/* The listener (borrowed; -EBADF: none), and all connections to RET. How many, or -E2BIG above MAX. */
int control_server_save(
	const struct control_server *s, int *ret_listen_fd, struct control_saved *ret, size_t max);

/* Goes on with C, whose descriptors are taken over whatever is returned, and notes the new call in it. */
int control_server_restore_consume(struct control_server *s, struct control_saved *c);

/* Writes what is queued, waiting at most 1 s in all, and closes. For the last words of a process. */
void control_server_destroy(struct control_server *s);
