/*
 * The device side of a split virtqueue (virtio 1.2, §2.7), with indirect descriptors and event_idx.
 *
 * Theory of operation. The ring lies in guest memory and its driver is hostile and runs beside us.
 * Every index and descriptor is copied out once and then checked; a chain has at most as many
 * descriptors as the ring has entries, so a loop ends; an indirect table is not nested, has no NEXT
 * beside it and at most that many entries. Whatever breaks a rule makes the queue *broken*: it is
 * never looked at again until it is set up anew, and only that guest suffers.
 *
 * Order: the available index is read with acquire before its entries; a used entry is written
 * before its index (release). With event_idx two sides each write one thing and read the other, so
 * both virtq_arm() and virtq_wants_call() need a full barrier between.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "guest-mem.h"

#define VIRTQ_NUM_MAX 1024 /* entries, and pieces of one chain and direction (IOV_MAX) */

/* The three parts in our address space; sizes by virtq_*_bytes(). */
struct virtq_parts {
	void *desc, *avail, *used; /* borrowed */
};

struct virtq {
	struct virtq_parts parts;
	uint16_t num;
	bool event_idx, indirect;
	bool broken;
	bool called;         /* `called_idx` says something */
	uint16_t last_avail; /* the next available entry to take */
	uint16_t used_idx;   /* what the used index is or will be */
	uint16_t called_idx; /* used_idx at the last virtq_wants_call() */
};

/* One request: pieces that the driver wrote (out) and those that it wants filled (in). */
struct virtq_chain {
	uint16_t head;
	uint16_t n_out, n_in;
	uint64_t out_bytes, in_bytes;
	struct iovec out[VIRTQ_NUM_MAX], in[VIRTQ_NUM_MAX];
};

static inline uint64_t virtq_desc_bytes(uint16_t num)
{
	return 16 * (uint64_t)num;
}

static inline uint64_t virtq_avail_bytes(uint16_t num)
{
	return 6 + 2 * (uint64_t)num;
}

static inline uint64_t virtq_used_bytes(uint16_t num)
{
	return 6 + 8 * (uint64_t)num;
}

/* NUM is a power of two up to VIRTQ_NUM_MAX. It goes on from the used index in the ring. */
void virtq_start(struct virtq *q, const struct virtq_parts *parts, uint16_t num, bool event_idx,
	bool indirect);

/* 1: the next chain is in *RET; 0: none; -errno: the queue is broken (from now on). */
int virtq_pop(struct virtq *q, const struct guest_mem *m, struct virtq_chain *ret);

/* Gives the chain of the last virtq_pop() back to the ring, untouched. */
void virtq_unpop(struct virtq *q);

/* Returns a chain to the driver, LEN bytes of its `in` pieces written. */
void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t len);

/* Asks for a kick at the next available entry. True: there is one already, look again. */
bool virtq_arm(struct virtq *q);

/*
 * The available index as it is, with a kick asked for when the driver moves it. For a queue whose entries are not
 * worked off as they come.
 */
uint16_t virtq_watch(struct virtq *q);

/* Asks for no kicks while the queue is being worked on. A hint, with event_idx nothing to do. */
void virtq_disarm(struct virtq *q);

/* Whether the driver wants an interrupt for what was pushed since the last call. */
bool virtq_wants_call(struct virtq *q);
