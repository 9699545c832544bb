#include "vu-resume.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"

/* A descriptor that the former process had, by its slot; there may have been none. */
static int vu_resume_fd(struct vu_backend *b, uint8_t slot, int *ret_fd)
{
	int fd = -EBADF;

	if (slot != KEEPER_SLOT_NONE) {
		fd = vu_keep_claim(b->keep, slot);
		if (fd < 0)
			return -ENODATA;
	}
	*ret_fd = fd;
	return 0;
}

static int vu_resume_memory(struct vu_backend *b, const struct vu_state *s)
{
	for (uint32_t i = 0; i < s->table.n; i++) {
		const struct vu_region *g = &s->table.regions[i];
		CLEANUP_CLOSE int fd = -EBADF;
		int r = vu_resume_fd(b, s->region_slots[i], &fd);

		if (r == 0)
			r = fd < 0 ? -ENODATA
				   : guest_mem_add(
					     &b->mem, fd, g->gpa, g->size, g->user, g->offset);
		if (r < 0)
			return r;
	}
	b->table = s->table;
	memcpy(b->region_slots, s->region_slots, sizeof b->region_slots);
	return 0;
}

static int vu_resume_ring(struct vu_queue *q, int kick_fd_consume)
{
	CLEANUP_CLOSE int fd = kick_fd_consume;
	struct virtq_parts parts;
	int r;

	if (fd < 0)
		return -ENODATA;
	r = vu_backend_translate(q, &parts);
	return r < 0 ? r : vu_backend_run(q, &parts, TAKE_FD(fd));
}

static int vu_resume_queue(struct vu_queue *q, const struct vu_state_queue *s)
{
	struct vu_backend *b = q->backend;
	int kick, r;

	if (s->addr.index != (uint32_t)(q - b->queues) && s->has_addr)
		return -EBADMSG;
	q->num = s->num;
	q->base = s->base;
	q->stopped_at = s->stopped_at;
	q->has_addr = s->has_addr;
	q->enabled = s->enabled;
	q->was_running = s->was_running;
	q->addr = s->addr;
	r = vu_resume_fd(b, s->call_slot, &q->call_fd);
	if (r == 0)
		r = vu_resume_fd(b, s->err_slot, &q->err_fd);
	if (r < 0)
		return r;
	q->call_slot = s->call_slot;
	q->err_slot = s->err_slot;
	if (!s->running)
		return 0;
	r = vu_resume_fd(b, s->kick_slot, &kick);
	q->kick_slot = s->kick_slot;
	return r < 0 ? r : vu_resume_ring(q, kick);
}

/* The device learns what it would know; a kick or an interrupt may have been lost with the other. */
static int vu_resume_tell(struct vu_backend *b)
{
	int r;

	for (unsigned i = 0; i < b->device->n_queues; i++) {
		struct vu_queue *q = &b->queues[i];

		if (q->was_running && !q->running)
			b->device->stopped(b, i);
		if (!q->running)
			continue;
		b->device->started(b, i, VU_BEGIN_ON);
		r = q->call_fd >= 0 ? vu_backend_notify(q->call_fd) : 0;
		if (r < 0)
			return r;
		if (q->enabled)
			b->device->kicked(b, i);
	}
	return 0;
}

int vu_resume(struct vu_backend *b, struct vu_keep *keep)
{
	struct vu_state s;
	int r;

	b->keep = keep;
	r = vu_keep_load(keep, &s);
	if (r <= 0)
		return r;
	if ((s.features & ~(b->device->features | VU_TRANSPORT_FEATURES)) ||
		(s.protocol_features & ~VU_PROTOCOL_FEATURES))
		return -EBADMSG;
	r = vu_keep_finish_answer(keep, b->fd);
	if (r < 0)
		return r;
	b->features = s.features;
	b->protocol_features = s.protocol_features;
	r = vu_resume_memory(b, &s);
	for (unsigned i = 0; r == 0 && i < b->device->n_queues; i++)
		r = vu_resume_queue(&b->queues[i], &s.queues[i]);
	if (r == 0)
		r = vu_resume_tell(b);
	return r < 0 ? r : 1;
}
