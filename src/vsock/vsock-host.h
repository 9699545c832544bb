/*
 * The host's side: the hybrid socket that Firecracker began and Cloud Hypervisor speaks too.
 *
 * A host program connects to the socket PATH, writes "CONNECT <port>\n" and reads
 * "OK <its port>\n" when the guest has accepted; a refusal is the end of the connection without a
 * word. A guest that calls port P reaches whoever listens at PATH_P.
 *
 * The line is looked at with MSG_PEEK and only then taken, up to its newline: what follows it stays
 * in the socket for the guest. At most VSOCK_PENDING_MAX callers may be without a line; one more
 * costs the oldest its place, so a flood of silent ones cannot shut out somebody who speaks. But
 * each has VSOCK_PENDING_SAFE_USEC first, or a flood would push out whoever was not on a CPU
 * between his connect() and his write(); till then new ones wait in the listener's queue.
 */
#pragma once

#include <stdint.h>

#include "loop.h"

#define VSOCK_PENDING_MAX       256
#define VSOCK_PENDING_SAFE_USEC 50000
#define VSOCK_LINE_MAX          32 /* bytes, newline included */
#define VSOCK_HANDSHAKE_USEC    2000000
#define VSOCK_PATH_MAX          64

struct vsock_host;

/* FD has sent its line. Takes FD over. */
typedef void vsock_host_called(struct vsock_host *h, uint32_t port, int fd_consume);

struct vsock_pending {
	struct loop_source source;
	struct loop_timer timer;
	struct vsock_host *host; /* borrowed */
	struct list link;        /* in host.waiting, oldest first, or host.idle */
	int fd;                  /* owned */
};

struct vsock_host {
	struct loop *loop; /* borrowed */
	struct loop_source source;
	struct loop_job accept_job;     /* more may wait */
	struct loop_timer accept_timer; /* descriptors or places had run out */
	vsock_host_called *called;
	int fd; /* owned */
	char path[VSOCK_PATH_MAX];
	struct list waiting, idle; /* of vsock_pending.link */
	size_t fresh;              /* the first of `pending` that was never used: it is all zeros */
	struct vsock_pending pending[VSOCK_PENDING_MAX];
};

/* Takes over LISTEN_FD. PATH is relative to the working directory, one name. 0 or -errno. */
int vsock_host_open(struct vsock_host *h, struct loop *loop, const char *path,
	vsock_host_called *called, int listen_fd_consume);
/* A caller that a former process handed over, with TIMER_USEC left for his line. Takes FD over. 0 or -errno. */
int vsock_host_restore(struct vsock_host *h, uint64_t timer_usec, int fd_consume);

/* Closes all who have not sent their line. */
void vsock_host_drop(struct vsock_host *h);
void vsock_host_close(struct vsock_host *h);

/* A connected socket of whoever listens at PATH_PORT, or -errno; -EAGAIN: its queue is full. */
int vsock_host_dial(const struct vsock_host *h, uint32_t port);

/* "CONNECT <port>\n" of LEN bytes, exactly: 0 or -EINVAL. Pure. */
int vsock_host_parse(const char *line, size_t len, uint32_t *ret_port);
