/*
 * The connections of one guest: a fixed number of slots, found by key, and their memory.
 *
 * A copy of the keys may be published in a shared file that outlives this process. Its successor
 * takes the vhost-user session over and first resets what it finds there: otherwise a guest would
 * wait for ever on a connection that nobody has any more. The file is ours alone; whoever keeps
 * it does not look into it, and what is read back is only ever sent to the guest as resets.
 *
 * A death at any point loses no entry: one stays live until the guest has its reset in hand
 * (vsock_table_settle()), and a successor moves entries before it clears any. One too many does no harm.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vsock-conn.h"

#define VSOCK_CONNS_MAX     1023
#define VSOCK_TABLE_BUCKETS 1024
#define VSOCK_TABLE_MAGIC   0x314b4356u /* "VCK1": changes with the layout */
#define VSOCK_TABLE_NONE    UINT16_MAX

/* The file: one head, then one entry a slot. Host order: it never leaves the machine. */
struct vsock_table_head {
	uint32_t magic, n_slots;
	uint64_t guest_cid;
	uint64_t reserved[2];
};

struct vsock_table_entry {
	uint64_t peer_cid;
	uint32_t peer_port, guest_port;
	uint32_t type;
	uint32_t live; /* written last when a connection begins, first when it ends */
	uint64_t reserved;
};

#define VSOCK_TABLE_BYTES                                                                          \
	(sizeof(struct vsock_table_head) + VSOCK_CONNS_MAX * sizeof(struct vsock_table_entry))

struct vsock_table {
	struct vsock_conn conns[VSOCK_CONNS_MAX];
	uint16_t buckets[VSOCK_TABLE_BUCKETS];
	uint16_t free;     /* first slot that was given back, linked by hash_next */
	uint16_t fresh;    /* first slot that was never used: it is all zeros */
	struct loop *loop; /* borrowed, all: for slots that are made */
	const struct vsock_conn_hooks *hooks;
	void *owner;
	uint16_t n_used;
	uint64_t seed;
	uint32_t next_port;
	uint8_t *arena;                /* owned: VSOCK_BUF_BYTES a slot, touched when needed */
	struct vsock_table_head *file; /* owned mapping, or NULL */
	bool is_stale;
	uint64_t stale[(VSOCK_CONNS_MAX + 63) / 64]; /* released, and still live in the file */
};

/* HOOKS and OWNER go to every connection; its ended() must end in vsock_table_release(). 0 or -errno. */
int vsock_table_init(struct vsock_table *t, struct loop *loop, const struct vsock_conn_hooks *hooks,
	void *owner, uint64_t seed);
void vsock_table_finish(struct vsock_table *t);

/* Makes FD (borrowed) large enough for vsock_table_publish(). 0 or -errno. */
int vsock_table_grow(int fd);

/*
 * Publishes to FD (borrowed) from now on; slots were only taken, so the first ones are in use. Entries that a former process left are passed
 * to LEFT, which takes a slot for each or loses it. 0 or -errno.
 */
int vsock_table_publish(struct vsock_table *t, int fd, uint64_t guest_cid,
	void (*left)(const struct vsock_key *key, void *userdata), void *userdata);

struct vsock_conn *vsock_table_find(struct vsock_table *t, const struct vsock_key *key);

/* A free slot for KEY, which is not in the table; NULL when all are taken. */
struct vsock_conn *vsock_table_take(struct vsock_table *t, const struct vsock_key *key);

/* After the end of a connection, or when it could not begin. */
void vsock_table_release(struct vsock_table *t, struct vsock_conn *c);

/* The guest has what it was told up to now: what was released leaves the file. */
void vsock_table_settle(struct vsock_table *t);

/* A host port from the dynamic range that is not in use towards GUEST_PORT. */
uint32_t vsock_table_port(struct vsock_table *t, uint32_t guest_port);
