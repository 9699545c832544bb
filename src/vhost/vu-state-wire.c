#include "vu-state-wire.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "virtq.h"

#define VU_STATE_REGION_BYTES 40
#define VU_STATE_QUEUE_BYTES  56
#define VU_STATE_REGIONS_AT   24
#define VU_STATE_QUEUES_AT    (VU_STATE_REGIONS_AT + VU_WIRE_REGIONS_MAX * VU_STATE_REGION_BYTES)

static_assert(VU_STATE_QUEUES_AT + VU_STATE_QUEUES * VU_STATE_QUEUE_BYTES <= VU_STATE_COPY_BYTES,
	"a copy holds it all");
static_assert(VU_STATE_COPY_AT(2) <= VU_STATE_PAGE_BYTES, "the page holds both");

enum {
	VU_STATE_HAS_ADDR = 1 << 0,
	VU_STATE_ENABLED = 1 << 1,
	VU_STATE_RUNNING = 1 << 2,
	VU_STATE_WAS_RUNNING = 1 << 3,
	VU_STATE_FLAGS = (1 << 4) - 1,
};

static void put32(uint8_t *p, uint32_t v)
{
	memcpy(p, &v, sizeof v);
}

static void put64(uint8_t *p, uint64_t v)
{
	memcpy(p, &v, sizeof v);
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static void put_queue(uint8_t *p, const struct vu_state_queue *q)
{
	put32(p, q->num);
	put32(p + 4, (uint32_t)q->base | (uint32_t)q->stopped_at << 16);
	p[8] = (uint8_t)((q->has_addr ? VU_STATE_HAS_ADDR : 0) |
			 (q->enabled ? VU_STATE_ENABLED : 0) | (q->running ? VU_STATE_RUNNING : 0) |
			 (q->was_running ? VU_STATE_WAS_RUNNING : 0));
	p[9] = q->kick_slot;
	p[10] = q->call_slot;
	p[11] = q->err_slot;
	put32(p + 12, q->addr.index);
	put32(p + 16, q->addr.flags);
	put64(p + 24, q->addr.desc);
	put64(p + 32, q->addr.used);
	put64(p + 40, q->addr.avail);
	put64(p + 48, q->addr.log);
}

void vu_state_wire_put(uint8_t out[static VU_STATE_COPY_BYTES], const struct vu_state *s)
{
	memset(out, 0, VU_STATE_COPY_BYTES);
	put64(out, s->features);
	put64(out + 8, s->protocol_features);
	put32(out + 16, s->table.n);
	for (uint32_t i = 0; i < s->table.n; i++) {
		uint8_t *p = out + VU_STATE_REGIONS_AT + VU_STATE_REGION_BYTES * i;
		const struct vu_region *r = &s->table.regions[i];

		put64(p, r->gpa);
		put64(p + 8, r->size);
		put64(p + 16, r->user);
		put64(p + 24, r->offset);
		p[32] = s->region_slots[i];
	}
	for (size_t i = 0; i < VU_STATE_QUEUES; i++)
		put_queue(out + VU_STATE_QUEUES_AT + VU_STATE_QUEUE_BYTES * i, &s->queues[i]);
}

/* Each slot once: a descriptor has one owner. */
static bool take_slot(uint64_t *taken, uint8_t slot)
{
	if (slot == KEEPER_SLOT_NONE)
		return true;
	if (slot >= KEEPER_SLOTS || *taken >> slot & 1)
		return false;
	*taken |= 1ull << slot;
	return true;
}

static int get_queue(const uint8_t *p, uint64_t *taken, struct vu_state_queue *q)
{
	uint8_t flags = p[8];

	*q = (struct vu_state_queue){ .num = get32(p),
		.base = (uint16_t)get32(p + 4),
		.stopped_at = (uint16_t)(get32(p + 4) >> 16),
		.has_addr = flags & VU_STATE_HAS_ADDR,
		.enabled = flags & VU_STATE_ENABLED,
		.running = flags & VU_STATE_RUNNING,
		.was_running = flags & VU_STATE_WAS_RUNNING,
		.kick_slot = p[9],
		.call_slot = p[10],
		.err_slot = p[11],
		.addr = { get32(p + 12), get32(p + 16), get64(p + 24), get64(p + 32), get64(p + 40),
			get64(p + 48) } };
	if (flags & ~VU_STATE_FLAGS || q->num > VIRTQ_NUM_MAX || (q->num & (q->num - 1)))
		return -EBADMSG;
	if (!take_slot(taken, q->kick_slot) || !take_slot(taken, q->call_slot) ||
		!take_slot(taken, q->err_slot))
		return -EBADMSG;
	return q->running && (!q->num || !q->has_addr) ? -EBADMSG : 0;
}

int vu_state_wire_get(const uint8_t *bytes, size_t len, struct vu_state *ret)
{
	struct vu_state s = { 0 };
	uint64_t taken = 0;

	if (len != VU_STATE_COPY_BYTES)
		return -EBADMSG;
	s.features = get64(bytes);
	s.protocol_features = get64(bytes + 8);
	s.table.n = get32(bytes + 16);
	if (s.table.n > VU_WIRE_REGIONS_MAX)
		return -EBADMSG;
	memset(s.region_slots, KEEPER_SLOT_NONE, sizeof s.region_slots);
	for (uint32_t i = 0; i < s.table.n; i++) {
		const uint8_t *p = bytes + VU_STATE_REGIONS_AT + VU_STATE_REGION_BYTES * i;

		s.table.regions[i] =
			(struct vu_region){ get64(p), get64(p + 8), get64(p + 16), get64(p + 24) };
		s.region_slots[i] = p[32];
		if (!take_slot(&taken, p[32]))
			return -EBADMSG;
	}
	for (size_t i = 0; i < VU_STATE_QUEUES; i++) {
		const uint8_t *p = bytes + VU_STATE_QUEUES_AT + VU_STATE_QUEUE_BYTES * i;
		int r = get_queue(p, &taken, &s.queues[i]);

		if (r < 0)
			return r;
	}
	*ret = s;
	return 0;
}

int vu_state_wire_get_head(const uint8_t *bytes, size_t len, struct vu_state_head *ret)
{
	struct vu_state_head h;

	if (len != VU_STATE_HEAD_BYTES)
		return -EBADMSG;
	h = (struct vu_state_head){ get32(bytes), get32(bytes + 4), get32(bytes + 8) };
	if ((h.magic && h.magic != VU_STATE_MAGIC) || h.active > 1 || h.busy >= VU_STATE_BUSY_END)
		return -EBADMSG;
	*ret = h;
	return 0;
}

void vu_state_wire_put_head(uint8_t out[static VU_STATE_HEAD_BYTES], const struct vu_state_head *h)
{
	const uint32_t words[] = { h->magic, h->busy, h->active, 0 };

	memcpy(out, words, sizeof words);
}
