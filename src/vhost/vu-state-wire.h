/*
 * The state of a vhost-user session as bytes: what a successor has to know beside the descriptors.
 *
 * The page lies in a memfd that outlives the process. Its supervisor keeps it and never looks in;
 * a successor takes it for hostile, as it takes everything that a fallen process has left. Pure.
 *
 * Layout, host order (it never leaves the machine): u32 magic, u32 busy, u32 active, u32 0; then two
 * copies of the state, at VU_STATE_COPY_AT each, and behind them the reply that is being sent (vu-keep.c). A
 * writer fills the copy that is not active and then makes it so, so a death in between leaves the former one
 * whole. The magic changes with the layout.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keeper-wire.h"
#include "vu-wire.h"

#define VU_STATE_MAGIC      0x31535556u /* "VUS1" */
#define VU_STATE_PAGE_BYTES 4096
#define VU_STATE_COPY_BYTES 1024
#define VU_STATE_HEAD_BYTES 16
#define VU_STATE_QUEUES     3

/* Where copy I begins. */
#define VU_STATE_COPY_AT(i) (1024u + (i)*VU_STATE_COPY_BYTES)

struct vu_state_queue {
	uint32_t num; /* 0: not set yet */
	uint16_t base, stopped_at;
	bool has_addr, enabled, running, was_running;
	uint8_t kick_slot, call_slot, err_slot; /* KEEPER_SLOT_NONE: none */
	struct vu_vring_addr addr;
};

struct vu_state {
	uint64_t features, protocol_features;
	struct vu_mem_table table; /* n is 0 before the first */
	uint8_t region_slots[VU_WIRE_REGIONS_MAX];
	struct vu_state_queue queues[VU_STATE_QUEUES];
};

/* What the process was at. */
enum vu_state_busy {
	VU_STATE_IDLE = 0,
	VU_STATE_PIECES = 1,    /* bytes of a message were taken, the rest has not come */
	VU_STATE_ANSWERING = 2, /* vu_keep_answer() */
	VU_STATE_BUSY_END,
};

struct vu_state_head {
	uint32_t magic, busy, active; /* busy: enum vu_state_busy */
};

void vu_state_wire_put(uint8_t out[static VU_STATE_COPY_BYTES], const struct vu_state *s);

/*
 * -EBADMSG unless every number is in its range, a queue that runs has all it needs, and no slot is named
 * twice. What the numbers mean for this device and its memory is still to be checked.
 */
int vu_state_wire_get(const uint8_t *bytes, size_t len, struct vu_state *ret);

/* LEN is VU_STATE_HEAD_BYTES. -EBADMSG: another layout, or no such copy. An empty page is magic 0. */
int vu_state_wire_get_head(const uint8_t *bytes, size_t len, struct vu_state_head *ret);
void vu_state_wire_put_head(uint8_t out[static VU_STATE_HEAD_BYTES], const struct vu_state_head *h);
