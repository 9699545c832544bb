/*
 * One connection between a guest and a stream socket on the host.
 *
 * Theory of operation. The guest's side speaks packets with credit, the host's side is a
 * non-blocking UNIX stream socket, watched edge-triggered once and for all. Guest bytes go straight
 * from guest memory into the socket; what it does not take goes into a ring of VSOCK_BUF_BYTES,
 * which is exactly what we announce as buf_alloc, so a guest that keeps to its credit always fits
 * and one that does not is reset. Host bytes are read straight into guest memory, never more than
 * the guest's credit: a guest that does not read, or posts no buffers, makes nothing grow here.
 *
 * What a connection wants to tell the guest is a set of bits (`owes`), not a queue: each packet is
 * made when there is room for it. While it has something to say it is on its owner's list of the
 * ready ones, which are served in turn.
 *
 *   REQUESTED  the host called; the guest has not answered (VSOCK_REQUEST_USEC, then reset)
 *   OPEN       bytes flow; each direction may end by itself
 *   DRAINING   the guest is done both ways; the ring still goes to the host (VSOCK_LINGER_USEC)
 *   DEAD       a RST is owed, nothing else is left
 *
 * The table in vsock-conn.c has an answer for each state and operation. An end is told once by
 * hooks->ended(), after which the memory is the owner's again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "loop.h"
#include "ring.h"
#include "vsock-wire.h"

#define VSOCK_BUF_BYTES     65536
#define VSOCK_PACKET_MAX    65536 /* bytes of payload */
#define VSOCK_REQUEST_USEC  2000000
#define VSOCK_SHUTDOWN_USEC 2000000
#define VSOCK_LINGER_USEC   60000000

enum vsock_conn_state {
	VSOCK_FREE,
	VSOCK_REQUESTED,
	VSOCK_OPEN,
	VSOCK_DRAINING,
	VSOCK_DEAD,
	VSOCK_CONN_STATES,
};

/* What names a connection, seen from the guest. */
struct vsock_key {
	uint64_t peer_cid;
	uint32_t peer_port, guest_port;
	uint16_t type;
};

enum vsock_owes {
	VSOCK_OWES_RST = 1 << 0,
	VSOCK_OWES_REQUEST = 1 << 1,
	VSOCK_OWES_RESPONSE = 1 << 2,
	VSOCK_OWES_SHUTDOWN = 1 << 3,
	VSOCK_OWES_CREDIT = 1 << 4,
	VSOCK_OWES_CREDIT_REQUEST = 1 << 5,
};

struct vsock_conn;

struct vsock_conn_hooks {
	void (*ready)(struct vsock_conn *c); /* has something for the guest; may be told again */
	void (*ended)(struct vsock_conn *c); /* descriptor closed, nothing owed */
};

struct vsock_conn {
	enum vsock_conn_state state;
	struct vsock_key key;
	const struct vsock_conn_hooks *hooks; /* borrowed */
	struct loop *loop;                    /* borrowed */
	struct loop_source source;
	struct loop_timer timer;
	int fd;           /* owned */
	struct ring ring; /* guest → host; memory borrowed from the owner's arena */
	bool ring_touched;
	unsigned owes;       /* enum vsock_owes */
	unsigned guest_shut; /* VSOCK_SHUTDOWN_*: what the guest has given up */
	unsigned host_shut;  /* what we have told, or owe to tell, the guest */
	bool readable, hangup, write_failed;
	bool credit_asked;
	/* credit, all modulo 2^32 */
	uint32_t rx_cnt, fwd_cnt, fwd_told; /* guest → host: came, went on, last told */
	uint32_t tx_cnt;                    /* host → guest: sent */
	uint32_t guest_alloc, guest_fwd;    /* as the guest last said */
	/* for the owner */
	void *owner; /* borrowed */
	struct list ready_link;
	uint16_t hash_next;
};

/* C gets its memory (VSOCK_BUF_BYTES at BUF) and idles as VSOCK_FREE. */
void vsock_conn_init(struct vsock_conn *c, struct loop *loop, const struct vsock_conn_hooks *hooks,
	void *owner, void *buf);

/* The guest called (P is its REQUEST) and FD is connected: 0, or -errno with FD closed. */
int vsock_conn_accept(struct vsock_conn *c, const struct vsock_key *key, const struct vsock_pkt *p,
	int fd_consume);

/* The host calls the guest from FD. "OK <port>\n" is written to it when the guest has answered. */
int vsock_conn_call(struct vsock_conn *c, const struct vsock_key *key, int fd_consume);

/* A connection as another process can go on with it; its ring's bytes and its descriptor go beside. */
struct vsock_conn_saved {
	enum vsock_conn_state state;
	struct vsock_key key;
	unsigned owes, guest_shut, host_shut;
	bool write_failed, credit_asked;
	uint32_t rx_cnt, fwd_cnt, fwd_told, tx_cnt, guest_alloc, guest_fwd;
	uint64_t timer_usec; /* left; UINT64_MAX: none */
	uint32_t ring_bytes;
};

void vsock_conn_save(const struct vsock_conn *c, struct vsock_conn_saved *ret);

/* Goes on with S, which is sound (vsock-handover-wire.h): 0, or -errno with FD closed. */
int vsock_conn_restore(struct vsock_conn *c, const struct vsock_conn_saved *s, const uint8_t *ring,
	int fd_consume);

/* Only a RST to the guest: for a connection of a process that is no more. */
void vsock_conn_bury(struct vsock_conn *c, const struct vsock_key *key);

/* A packet from the guest; PAYLOAD holds p->len bytes in N pieces, which may be changed. */
void vsock_conn_input(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n);

/* Ends it for both sides: the host sees it now, the guest when it takes its RST. */
void vsock_conn_abort(struct vsock_conn *c);

/* Ends it at once, without a word to the guest: the guest is gone, or started anew. */
void vsock_conn_drop(struct vsock_conn *c);

/* Whether vsock_conn_output() would have a packet, as far as can be known. */
bool vsock_conn_is_ready(const struct vsock_conn *c);

/*
 * The next packet for the guest, its payload read into ROOM (N pieces, which may be changed, of
 * ROOM_BYTES in all). Cids are left to the caller. False: nothing to say after all. May end C.
 */
bool vsock_conn_output(struct vsock_conn *c, struct vsock_pkt *ret, struct iovec *room, size_t n,
	uint64_t room_bytes);
