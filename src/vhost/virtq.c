#include "virtq.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "cleanup.h"

static uint16_t virtq_load16(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static void virtq_store16(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELEASE);
}

static uint8_t *virtq_avail_entry(const struct virtq *q, uint16_t i)
{
	return (uint8_t *)q->parts.avail + 4 + 2 * (size_t)i;
}

static uint8_t *virtq_used_entry(const struct virtq *q, uint16_t i)
{
	return (uint8_t *)q->parts.used + 4 + 8 * (size_t)i;
}

void virtq_start(struct virtq *q, const struct virtq_parts *parts, uint16_t num, bool event_idx,
	bool indirect)
{
	uint16_t used = virtq_load16((uint8_t *)parts->used + 2);

	assert(num && num <= VIRTQ_NUM_MAX && !(num & (num - 1)));
	*q = (struct virtq){ .parts = *parts,
		.num = num,
		.event_idx = event_idx,
		.indirect = indirect,
		.last_avail = used,
		.used_idx = used };
}

static int virtq_add(const struct guest_mem *m, struct virtq_chain *c, const struct vring_desc *d)
{
	uint32_t len = le32toh(d->len);
	int n;

	if (le16toh(d->flags) & VRING_DESC_F_WRITE) {
		n = guest_mem_iov(
			m, le64toh(d->addr), len, c->in + c->n_in, ARRAY_SIZE(c->in) - c->n_in);
		if (n < 0)
			return n;
		c->n_in += n;
		c->in_bytes += len;
		return 0;
	}
	if (c->n_in > 0)
		return -EBADMSG; /* what is read comes before what is written */
	n = guest_mem_iov(
		m, le64toh(d->addr), len, c->out + c->n_out, ARRAY_SIZE(c->out) - c->n_out);
	if (n < 0)
		return n;
	c->n_out += n;
	c->out_bytes += len;
	return 0;
}

/* BUDGET is how many descriptors the chain may still have. */
static int virtq_walk_indirect(const struct virtq *q, const struct guest_mem *m,
	struct virtq_chain *c, const struct vring_desc *table, unsigned budget)
{
	uint32_t bytes = le32toh(table->len), n = bytes / 16, i = 0;
	struct vring_desc d;
	int r;

	/* the WRITE flag of the referring descriptor means nothing (§2.7.5.3.2) */
	if (!q->indirect || bytes == 0 || bytes % 16 || n > q->num ||
		(le16toh(table->flags) & VRING_DESC_F_NEXT))
		return -EBADMSG;
	for (;; i = le16toh(d.next)) {
		if (budget-- == 0 || i >= n)
			return -EBADMSG;
		r = guest_mem_read(m, le64toh(table->addr) + 16 * (uint64_t)i, &d, sizeof d);
		if (r < 0)
			return r;
		if (le16toh(d.flags) & VRING_DESC_F_INDIRECT)
			return -EBADMSG;
		r = virtq_add(m, c, &d);
		if (r < 0 || !(le16toh(d.flags) & VRING_DESC_F_NEXT))
			return r;
	}
}

static int virtq_walk(const struct virtq *q, const struct guest_mem *m, struct virtq_chain *c)
{
	unsigned budget = q->num;
	uint16_t i = c->head;
	struct vring_desc d;
	int r;

	for (;; i = le16toh(d.next)) {
		if (budget-- == 0 || i >= q->num)
			return -EBADMSG;
		memcpy(&d, (uint8_t *)q->parts.desc + 16 * (size_t)i, sizeof d);
		__asm__ volatile("" : : "r"(&d) : "memory"); /* one fetch */
		if (le16toh(d.flags) & VRING_DESC_F_INDIRECT)
			return virtq_walk_indirect(q, m, c, &d, budget + 1);
		r = virtq_add(m, c, &d);
		if (r < 0 || !(le16toh(d.flags) & VRING_DESC_F_NEXT))
			return r;
	}
}

int virtq_pop(struct virtq *q, const struct guest_mem *m, struct virtq_chain *ret)
{
	uint16_t waiting;
	int r;

	if (q->broken)
		return -EBADMSG;
	waiting = virtq_load16((uint8_t *)q->parts.avail + 2) - q->last_avail;
	if (waiting == 0)
		return 0;
	ret->head = virtq_load16(virtq_avail_entry(q, q->last_avail & (q->num - 1)));
	ret->n_out = ret->n_in = 0;
	ret->out_bytes = ret->in_bytes = 0;
	r = waiting > q->num ? -EBADMSG : virtq_walk(q, m, ret);
	if (r < 0) {
		q->broken = true;
		return r;
	}
	q->last_avail++;
	return 1;
}

void virtq_unpop(struct virtq *q)
{
	q->last_avail--;
}

void virtq_push(struct virtq *q, const struct virtq_chain *c, uint32_t len)
{
	const uint32_t entry[2] = { htole32(c->head), htole32(len) };

	memcpy(virtq_used_entry(q, q->used_idx & (q->num - 1)), entry, sizeof entry);
	virtq_store16((uint8_t *)q->parts.used + 2, ++q->used_idx);
}

bool virtq_arm(struct virtq *q)
{
	if (q->broken)
		return false;
	if (q->event_idx)
		virtq_store16(virtq_used_entry(q, q->num), q->last_avail);
	else
		virtq_store16(q->parts.used, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return virtq_load16((uint8_t *)q->parts.avail + 2) != q->last_avail;
}

uint16_t virtq_watch(struct virtq *q)
{
	uint16_t now = virtq_load16((uint8_t *)q->parts.avail + 2), seen;

	do {
		seen = now;
		if (q->event_idx)
			virtq_store16(virtq_used_entry(q, q->num), seen);
		else
			virtq_store16(q->parts.used, 0);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		now = virtq_load16((uint8_t *)q->parts.avail + 2);
	} while (now != seen);
	return now;
}

void virtq_disarm(struct virtq *q)
{
	if (!q->event_idx && !q->broken)
		virtq_store16(q->parts.used, VRING_USED_F_NO_NOTIFY);
}

bool virtq_wants_call(struct virtq *q)
{
	uint16_t old = q->called_idx;
	bool first = !q->called;

	if (!first && old == q->used_idx)
		return false;
	q->called = true;
	q->called_idx = q->used_idx;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!q->event_idx)
		return !(virtq_load16(q->parts.avail) & VRING_AVAIL_F_NO_INTERRUPT);
	return first ||
	       vring_need_event(virtq_load16(virtq_avail_entry(q, q->num)), q->used_idx, old);
}
