/*
 * A client of Cloud Hypervisor's API: HTTP over a UNIX socket, one call at a time.
 *
 * The server reads the next request only when it has answered the last one, and some calls block it for a
 * minute; so each call has a deadline of its own that covers connecting, sending and the reply. A call that
 * misses it says nothing of the process: who called asks the process descriptor. The connection is kept between
 * calls, made again when it was lost, and its writing side is never shut down (the server drops a request
 * then). The VMM is hostile: what it sends is bounded (http-wire.h), and is text for people at most.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct sd_event sd_event;
struct ch_api;

#define CH_API_QUEUE_MAX 16

struct ch_call {
	const char *method;     /* borrowed until the call has ended: "GET" or "PUT" */
	const char *name;       /* borrowed as well, as in "vm.boot" */
	const char *body;       /* borrowed as well; NULL: none */
	int fd;                 /* borrowed as well: sent beside the request; -EBADF: none */
	uint64_t deadline_usec; /* relative to when it is its turn */
};

enum ch_api_end {
	CH_API_DONE,    /* 2xx: TEXT is its body */
	CH_API_REFUSED, /* 4xx, 5xx: TEXT is the chain of errors, made fit for a terminal */
	CH_API_LOST,    /* the connection ended before the reply */
	CH_API_SILENT,  /* no reply within the deadline */
	CH_API_BAD,     /* not HTTP, or too much of it: TEXT says which */
};

/* CALL as it was made; TEXT of LEN bytes is NUL-terminated and borrowed. */
typedef void (*ch_api_handler)(const struct ch_call *call, enum ch_api_end end, const char *text,
	size_t len, void *userdata);

/* SOCKET_FD is an O_PATH descriptor of the listening socket, taken over whatever is returned. */
int ch_api_create_consume(sd_event *event, int socket_fd, ch_api_handler handler, void *userdata,
	struct ch_api **ret);

/* Queues a call; its end comes from the loop, never from within. -EBUSY: too many wait. */
int ch_api_call(struct ch_api *a, const struct ch_call *call);

/* The name of the call that waits for its reply; NULL: none. */
const char *ch_api_current(const struct ch_api *a);

/* Borrowed; -EBUSY while a call is under way. */
int ch_api_socket(const struct ch_api *a);
void ch_api_destroy(struct ch_api *a);
