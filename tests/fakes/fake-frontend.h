/*
 * A fake vhost-user front-end with its guest: a memfd is the guest's RAM, and the rings in it are
 * driven as Linux' vsock driver drives them. It starts a real uvms-vsockd (UVMS_VSOCKD in the
 * environment) in a directory of its own. Helpers fail the running cmocka test when they cannot go on.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "keeper-wire.h"
#include "virtq.h"
#include "vsock-wire.h"
#include "vu-wire.h"

#define FAKE_CID       42
#define FAKE_NUM       256
#define FAKE_MEM_BYTES (32u << 20)
#define FAKE_USER      0x7f1200000000ull /* where the front-end would have it mapped */
#define FAKE_RX_BYTES  4096
#define FAKE_TX_BYTES  65536
#define FAKE_QUEUES    2
#define FAKE_RINGS     3 /* with that of events, which fake_setup() leaves alone as QEMU does */
#define FAKE_FEATURES  (1ull << 32 | 1ull << 30 | 1ull << 29 | 1ull << 28)
#define FAKE_RX_AT     0x100000u
#define FAKE_TX_AT     0x800000u
#define FAKE_SCRATCH   0x80000u
#define FAKE_TABLES    0x60000u /* indirect tables, when fake_indirect */

struct fake_ring {
	uint64_t at; /* guest address of the descriptors */
	int kick, call;
	uint16_t avail, used; /* ours: next to offer, next to collect */
};

struct fake {
	char dir[64];
	int sock, mem_fd, table_fd, listen_fd;
	pid_t pid;
	uint8_t *mem;
	struct fake_ring rings[FAKE_RINGS];
	int fds_at_start; /* of vsockd, after the handshake */
	/* when fake_keeps: what a supervisor has */
	int device_fd, state_fd, keeper_fd, slots[KEEPER_SLOTS];
	int pidfd;
	unsigned pongs, stays; /* heard of vsockd */
};

/* A vsockd that is to take all from the one that lives. */
struct fake_next {
	pid_t pid;
	int pidfd, keeper_fd, channel_fd;
};

/* Whether packets go in indirect descriptors, both ways. The guest's choice, packet by packet. */
extern bool fake_indirect;

/* Whether guest memory is not sealed, and vsockd is told so. */
extern bool fake_unsealed;

/* Whether fake_start() plays the keeper, too. */
extern bool fake_keeps;

/*
 * When not NULL: called as soon as vsockd has ended, from within whatever waits. It reaps and revives it, or leaves
 * f->pidfd closed.
 */
extern void (*fake_on_end)(struct fake *f);

void fake_start(struct fake *f);                   /* the process, connected, nothing said */
void fake_handshake(struct fake *f);               /* as QEMU does, up to running rings */
void fake_setup(struct fake *f);                   /* both, rx buffers posted */
void fake_setup_queue(struct fake *f, unsigned i); /* NUM … KICK of one */
void fake_rings_clear(struct fake *f);             /* as a driver that starts */
void fake_post_rx(struct fake *f, unsigned n);
int fake_memory(bool sealed); /* a memfd of FAKE_MEM_BYTES */
/* Hangs up, as fake_stop(); then another vsockd and another connection, for the same guest. Not when fake_keeps. */
void fake_redial(struct fake *f);
void fake_stop(struct fake *f); /* closes the session: vsockd has to end with 0 */
/* Waits for the end of vsockd and cleans up; returns its exit code, or -signal. */
int fake_wait_exit(struct fake *f);
bool fake_alive(struct fake *f);
/* SIGKILL, then a successor with all that was kept; returns what the dead one had ended with, as fake_wait_exit(). */
int fake_replace(struct fake *f);
int fake_reap(struct fake *f);    /* waits for its end; the same number */
void fake_revive(struct fake *f); /* after that */
void fake_keep(struct fake *f);   /* obeys what lies in the keeper's channel */
/*
 * A successor takes all from the process that lives; returns what that ended with. The successor's pid goes to
 * *RET_NEXT (may be NULL) before the other is asked.
 */
int fake_hand_over(struct fake *f, pid_t *ret_next);
/* The same in steps, for those that may fail. */
void fake_next_start(struct fake *f, struct fake_next *ret);
bool fake_next_waits(const struct fake_next *n, int msec); /* false: it will not come up */
bool fake_next_ask(struct fake *f, struct fake_next *n); /* tells vsockd; false: it does not hear */
void fake_next_adopt(struct fake *f, struct fake_next *n); /* vsockd is reaped: N is it now */
int fake_next_drop(struct fake_next *n);                   /* SIGKILL; what it has ended with */
int fake_count_fds(const struct fake *f);
/* Fails unless vsockd soon has as many descriptors as after the handshake. */
void fake_assert_no_leak(struct fake *f);

/* messages */
void fake_message(struct fake *f, uint32_t request, uint32_t flags, const void *payload, size_t len,
	const int *fds, size_t n_fds);
size_t fake_reply(struct fake *f, uint32_t request, void *ret, size_t max);
uint64_t fake_get_u64(struct fake *f, uint32_t request);
void fake_set_u64(struct fake *f, uint32_t request, uint64_t v);
void fake_set_state(struct fake *f, uint32_t request, uint32_t index, uint32_t num);
void fake_set_memory(struct fake *f);

/* rings */
void fake_desc(struct fake *f, unsigned q, uint16_t i, uint64_t addr, uint32_t len, uint16_t flags,
	uint16_t next);
void fake_offer(struct fake *f, unsigned q, uint16_t head); /* without a kick */
void fake_publish(struct fake *f, unsigned q, uint16_t avail_idx);
void fake_kick(struct fake *f, unsigned q);
uint16_t fake_used(const struct fake *f, unsigned q);
/* Fails unless queue Q has used up to IDX within a second. */
void fake_wait_used(struct fake *f, unsigned q, uint16_t idx);

/* packets */
struct vsock_pkt fake_pkt(uint16_t op, uint32_t guest_port, uint32_t host_port);
void fake_tx(struct fake *f, const struct vsock_pkt *p, const void *payload, size_t len);
/* The next packet, its payload in BUF (FAKE_RX_BYTES). False after MSEC without one. */
bool fake_rx(struct fake *f, struct vsock_pkt *ret, void *buf, int msec);
/* The next packet that is no credit update has to be OP for GUEST_PORT. */
struct vsock_pkt fake_expect(struct fake *f, uint16_t op, uint32_t guest_port, void *buf);

/* host programs */
int fake_listen(struct fake *f, uint32_t port, int backlog);
int fake_connect(struct fake *f); /* to the hybrid socket */
uint64_t fake_now_usec(void);
