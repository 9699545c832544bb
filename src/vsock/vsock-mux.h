/*
 * The engine between front-ends: sorts the guest's packets to connections, asks the policy, answers
 * what belongs to nobody with RST, and hands out what the connections have to say, each in turn.
 *
 * A RST without a connection has no slot to wait in. There are VSOCK_RESETS_MAX places; while they
 * are all taken vsock_mux_has_room() is false and no packet may be put in. So a guest that floods
 * us and takes no answers stops itself, and nothing grows.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vsock-policy.h"
#include "vsock-table.h"

#define VSOCK_RESETS_MAX 128

/*
 * Slots that a guest's calls never take, so that whatever its programs open, the host can still
 * call the agent (VSOCK_CONNS_HOST) and the agent can still call home (VSOCK_CONNS_HOME of them).
 */
#define VSOCK_CONNS_HOST 64
#define VSOCK_CONNS_HOME 16

struct vsock_mux;

struct vsock_mux_hooks {
	/* There may be something for the guest now. */
	void (*wake)(struct vsock_mux *m);
	/* A connected, non-blocking socket of the host program at PORT, or -errno. */
	int (*dial)(struct vsock_mux *m, uint32_t port);
	/* A connection was refused; WHY is a fixed text. */
	void (*refused)(struct vsock_mux *m, enum vsock_way way, uint32_t port, const char *why);
	/* The first connection of this process has been opened. May be NULL. */
	void (*served)(struct vsock_mux *m);
};

struct vsock_mux {
	const struct vsock_mux_hooks *hooks; /* borrowed */
	uint64_t guest_cid;
	bool has_served;
	struct list ready; /* of vsock_conn.ready_link */
	struct vsock_pkt resets[VSOCK_RESETS_MAX];
	unsigned resets_head, n_resets;
	struct vsock_table table;
};

/* 0 or -errno. SEED is random. */
int vsock_mux_init(struct vsock_mux *m, struct loop *loop, const struct vsock_mux_hooks *hooks,
	uint64_t guest_cid, uint64_t seed);
void vsock_mux_finish(struct vsock_mux *m);

/* vsock_table_publish(), with a RST to the guest for each connection of a former process that is not ours now. */
int vsock_mux_publish(struct vsock_mux *m, int fd);

/* The host calls the guest's PORT from FD: 0, or -errno with FD closed. */
int vsock_mux_call(struct vsock_mux *m, uint32_t port, int fd_consume);

/*
 * What a former process handed over, before vsock_mux_publish(): a connection (FD is taken over), and a RST that is
 * owed to nobody's packet. 0 or -errno: -EEXIST, -EMFILE, -ENOSPC.
 */
int vsock_mux_restore(
	struct vsock_mux *m, const struct vsock_conn_saved *s, const uint8_t *ring, int fd_consume);
int vsock_mux_restore_reset(struct vsock_mux *m, const struct vsock_key *key);

bool vsock_mux_has_room(const struct vsock_mux *m);

/* A packet from the guest, its payload (BYTES in N pieces) maybe shorter than it says. */
void vsock_mux_input(struct vsock_mux *m, const struct vsock_pkt *p, struct iovec *payload,
	size_t n, uint64_t bytes);

/* Whether vsock_mux_output() is worth a buffer of the guest. */
bool vsock_mux_has_output(const struct vsock_mux *m);

/* The next packet for the guest, as vsock_conn_output(), cids included. */
bool vsock_mux_output(struct vsock_mux *m, struct vsock_pkt *ret, struct iovec *room, size_t n,
	uint64_t room_bytes);

/* vsock_table_settle() */
void vsock_mux_settle(struct vsock_mux *m);

/* The guest takes nothing and may never again: no host program may wait for it any longer. */
void vsock_mux_guest_absent(struct vsock_mux *m);

/* The guest began anew: every connection ends, but not the calls that it has not seen yet. */
void vsock_mux_guest_reset(struct vsock_mux *m);
