#include "vu-backend.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"

#define VU_MESSAGES_PER_TURN 16

static void vu_close_fds(struct vu_backend *b)
{
	for (size_t i = 0; i < b->n_fds; i++)
		fd_close(b->fds[i]);
	b->n_fds = 0;
}

static void vu_end(struct vu_backend *b, int error, const char *what)
{
	if (b->ended)
		return;
	b->ended = true;
	vu_close_fds(b);
	loop_source_remove(b->loop, &b->source);
	b->device->ended(b, error, what);
}

/* queues */

struct virtq *vu_backend_queue(struct vu_backend *b, unsigned queue)
{
	struct vu_queue *q = &b->queues[queue];

	return !b->ended && q->running && q->enabled && !q->vq.broken ? &q->vq : NULL;
}

int vu_backend_notify(int fd)
{
	static const uint64_t one = 1;
	ssize_t r;

	do
		r = write(fd, &one, sizeof one);
	while (r < 0 && errno == EINTR);
	/* non-blocking: a full eventfd has told already */
	return r < 0 && errno != EAGAIN ? -errno : 0;
}

void vu_backend_call(struct vu_backend *b, unsigned queue)
{
	struct virtq *vq = vu_backend_queue(b, queue);

	int r = 0;

	if (vq && virtq_wants_call(vq) && b->queues[queue].call_fd >= 0)
		r = vu_backend_notify(b->queues[queue].call_fd);
	if (r < 0) /* the guest might wait for ever: another process will tell it */
		vu_end(b, r, "an interrupt for the guest");
}

static void vu_queue_kicked(struct loop_source *s, uint32_t events)
{
	struct vu_queue *q = CONTAINER_OF(s, struct vu_queue, kick);
	struct vu_backend *b = q->backend;
	uint64_t count;

	/* edge-triggered, so one that never runs dry costs nothing; and whatever it says, there was a kick */
	if (read(q->kick_fd, &count, sizeof count) < 0)
		count = 0;
	b->device->kicked(b, (unsigned)(q - b->queues));
}

int vu_backend_translate(struct vu_queue *q, struct virtq_parts *ret)
{
	const struct guest_mem *m = &q->backend->mem;
	const struct vu_vring_addr *a = &q->addr;
	uint16_t num = (uint16_t)q->num;

	if (a->desc % 16 || a->avail % 2 || a->used % 4)
		return -EINVAL;
	ret->desc = guest_mem_user(m, a->desc, virtq_desc_bytes(num));
	ret->avail = guest_mem_user(m, a->avail, virtq_avail_bytes(num));
	ret->used = guest_mem_user(m, a->used, virtq_used_bytes(num));
	return ret->desc && ret->avail && ret->used ? 0 : -EFAULT;
}

static void vu_queue_stop(struct vu_queue *q)
{
	if (q->running) {
		q->base = q->stopped_at = q->vq.last_avail;
		q->was_running = true;
		q->running = false;
		q->backend->device->stopped(q->backend, (unsigned)(q - q->backend->queues));
	}
	loop_source_remove(q->backend->loop, &q->kick);
	q->kick_fd = fd_close(q->kick_fd);
	vu_keep_drop(q->backend->keep, q->kick_slot);
	q->kick_slot = KEEPER_SLOT_NONE;
}

int vu_backend_run(struct vu_queue *q, const struct virtq_parts *parts, int kick_fd_consume)
{
	CLEANUP_CLOSE int fd = kick_fd_consume;
	struct vu_backend *b = q->backend;
	int r = loop_source_add(b->loop, &q->kick, fd, EPOLLIN | EPOLLET);

	if (r < 0)
		return r;
	q->kick_fd = TAKE_FD(fd);
	/* what a front-end says (q->base) may be where the driver is, not where we were (Cloud Hypervisor) */
	virtq_start(&q->vq, parts, (uint16_t)q->num, vu_backend_has(b, VIRTIO_RING_F_EVENT_IDX),
		vu_backend_has(b, VIRTIO_RING_F_INDIRECT_DESC));
	q->running = true;
	return 0;
}

static enum vu_begin vu_queue_begins(const struct vu_queue *q)
{
	if (q->was_running)
		return q->vq.used_idx == q->stopped_at ? VU_BEGIN_ON : VU_BEGIN_ANEW;
	return q->vq.used_idx == 0 ? VU_BEGIN_ON : VU_BEGIN_STRANGE;
}

static int vu_queue_start(struct vu_queue *q, int kick_fd_consume)
{
	CLEANUP_CLOSE int fd = kick_fd_consume;
	struct vu_backend *b = q->backend;
	unsigned index = (unsigned)(q - b->queues);
	struct virtq_parts parts;
	int r;

	if (!q->num || !q->has_addr || !b->mem.n)
		return -EPROTO;
	vu_queue_stop(q);
	r = vu_backend_translate(q, &parts);
	if (r < 0)
		return r;
	r = vu_backend_run(q, &parts, TAKE_FD(fd));
	if (r < 0)
		return r;
	q->kick_slot = vu_keep_fd(b->keep, q->kick_fd);
	b->device->started(b, index, vu_queue_begins(q));
	if (q->enabled)
		b->device->kicked(b, index);
	return 0;
}

/* After a new memory table the rings that run have to be found again. */
static int vu_queues_retranslate(struct vu_backend *b)
{
	int r;

	for (unsigned i = 0; i < b->device->n_queues; i++) {
		if (!b->queues[i].running)
			continue;
		r = vu_backend_translate(&b->queues[i], &b->queues[i].vq.parts);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct vu_queue *vu_queue_at(struct vu_backend *b, uint64_t index)
{
	return index < b->device->n_queues ? &b->queues[index] : NULL;
}

/* replies: composed here, sent by vu_finish_message() */

static int vu_reply(struct vu_backend *b, const void *payload, uint32_t len)
{
	vu_wire_put_reply(b->out, b->header.request, len);
	memcpy(b->out + VU_WIRE_HEADER_BYTES, payload, len);
	b->out_bytes = VU_WIRE_HEADER_BYTES + len;
	return 0;
}

static int vu_send_reply(struct vu_backend *b)
{
	size_t len = b->out_bytes;
	ssize_t n;

	b->out_bytes = 0;
	do
		n = send(b->fd, b->out, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)len ? 0 : -EAGAIN;
}

static int vu_reply_u64(struct vu_backend *b, uint64_t v)
{
	return vu_reply(b, &v, sizeof v);
}

/* one handler a request; PAYLOAD is as long as the header says, which is inside the shape */

typedef int vu_handler(struct vu_backend *b, const uint8_t *payload, size_t len);

static int vu_get_features(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	return vu_reply_u64(b, b->device->features | VU_TRANSPORT_FEATURES);
}

static int vu_set_features(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	uint64_t v;
	int r = vu_wire_get_u64(payload, len, &v);

	if (r < 0)
		return r;
	if (v & ~(b->device->features | VU_TRANSPORT_FEATURES))
		return -EPROTO;
	b->features = v;
	/* without the protocol features there is no SET_VRING_ENABLE: all are enabled */
	for (unsigned i = 0; i < b->device->n_queues; i++)
		b->queues[i].enabled |= !vu_backend_has(b, VU_FEATURE_PROTOCOL);
	return 0;
}

static int vu_set_owner(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	return 0;
}

/* Deprecated; what it says is that all rings stop. */
static int vu_reset_owner(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	for (unsigned i = 0; i < b->device->n_queues; i++)
		vu_queue_stop(&b->queues[i]);
	return 0;
}

static int vu_set_mem_table(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_mem_table t;
	struct guest_mem mem;
	int r = vu_wire_get_mem_table(payload, len, &t);

	if (r < 0)
		return r;
	if (b->n_fds != t.n)
		return -EPROTO;
	guest_mem_init(&mem, b->mem.may_shrink);
	for (uint32_t i = 0; i < t.n; i++) {
		const struct vu_region *g = &t.regions[i];

		r = guest_mem_add(&mem, b->fds[i], g->gpa, g->size, g->user, g->offset);
		if (r < 0) {
			guest_mem_finish(&mem);
			return r;
		}
	}
	guest_mem_finish(&b->mem);
	b->mem = mem;
	b->table = t;
	for (uint32_t i = 0; i < VU_WIRE_REGIONS_MAX; i++) {
		vu_keep_drop(b->keep, b->region_slots[i]);
		b->region_slots[i] = i < t.n ? vu_keep_fd(b->keep, b->fds[i]) : KEEPER_SLOT_NONE;
	}
	return vu_queues_retranslate(b);
}

static int vu_set_vring_num(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_vring_state s;
	struct vu_queue *q;
	int r = vu_wire_get_vring_state(payload, len, &s);

	if (r < 0)
		return r;
	q = vu_queue_at(b, s.index);
	if (!q || q->running || s.num == 0 || s.num > VIRTQ_NUM_MAX || (s.num & (s.num - 1)))
		return -EPROTO;
	q->num = s.num;
	return 0;
}

static int vu_set_vring_addr(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_vring_addr a;
	struct vu_queue *q;
	int r = vu_wire_get_vring_addr(payload, len, &a);

	if (r < 0)
		return r;
	q = vu_queue_at(b, a.index);
	if (!q || q->running || a.flags)
		return -EPROTO;
	q->addr = a;
	q->has_addr = true;
	return 0;
}

static int vu_set_vring_base(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_vring_state s;
	struct vu_queue *q;
	int r = vu_wire_get_vring_state(payload, len, &s);

	if (r < 0)
		return r;
	q = vu_queue_at(b, s.index);
	if (!q || q->running || s.num > UINT16_MAX)
		return -EPROTO;
	q->base = (uint16_t)s.num;
	return 0;
}

static int vu_get_vring_base(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_vring_state s;
	struct vu_queue *q;
	int r = vu_wire_get_vring_state(payload, len, &s);

	if (r < 0)
		return r;
	q = vu_queue_at(b, s.index);
	if (!q)
		return -EPROTO;
	vu_queue_stop(q);
	s.num = q->base;
	return vu_reply(b, &s, sizeof s);
}

/* What KICK, CALL and ERR share: the queue, and its descriptor (-EBADF: none), non-blocking. */
static int vu_vring_fd(struct vu_backend *b, const uint8_t *payload, size_t len,
	struct vu_queue **ret_queue, int *ret_fd)
{
	uint64_t v;
	int r = vu_wire_get_u64(payload, len, &v);

	if (r < 0)
		return r;
	*ret_queue = vu_queue_at(b, v & VU_VRING_INDEX_MASK);
	if (!*ret_queue || (v & ~(uint64_t)(VU_VRING_INDEX_MASK | VU_VRING_NO_FD)) ||
		b->n_fds != !(v & VU_VRING_NO_FD))
		return -EPROTO;
	*ret_fd = -EBADF;
	if (b->n_fds == 0)
		return 0;
	r = fd_set_nonblock(b->fds[0], 1);
	if (r < 0)
		return r;
	*ret_fd = b->fds[0];
	b->n_fds = 0;
	return 0;
}

static void vu_put_fd(struct vu_backend *b, int *fd, uint8_t *slot, int new_fd_consume)
{
	vu_keep_drop(b->keep, *slot);
	fd_close(*fd);
	*fd = new_fd_consume;
	*slot = *fd >= 0 ? vu_keep_fd(b->keep, *fd) : KEEPER_SLOT_NONE;
}

static int vu_set_vring_kick(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_queue *q;
	int fd, r = vu_vring_fd(b, payload, len, &q, &fd);

	if (r < 0)
		return r;
	if (fd < 0)
		return -EPROTO; /* polling: nobody here spins */
	return vu_queue_start(q, fd);
}

static int vu_set_vring_call(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_queue *q;
	int fd, r = vu_vring_fd(b, payload, len, &q, &fd);

	if (r < 0)
		return r;
	vu_put_fd(b, &q->call_fd, &q->call_slot, fd);
	/* what was pushed before it came must not be lost */
	q->vq.called = false;
	vu_backend_call(b, (unsigned)(q - b->queues));
	return 0;
}

static int vu_set_vring_err(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_queue *q;
	int fd, r = vu_vring_fd(b, payload, len, &q, &fd);

	if (r < 0)
		return r;
	vu_put_fd(b, &q->err_fd, &q->err_slot, fd);
	return 0;
}

static int vu_get_protocol_features(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	return vu_reply_u64(b, VU_PROTOCOL_FEATURES);
}

static int vu_set_protocol_features(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	uint64_t v;
	int r = vu_wire_get_u64(payload, len, &v);

	if (r < 0)
		return r;
	if (v & ~VU_PROTOCOL_FEATURES)
		return -EPROTO;
	b->protocol_features = v;
	return 0;
}

static int vu_get_queue_num(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	return vu_reply_u64(b, b->device->n_queues);
}

static int vu_set_vring_enable(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_vring_state s;
	struct vu_queue *q;
	int r = vu_wire_get_vring_state(payload, len, &s);

	if (r < 0)
		return r;
	q = vu_queue_at(b, s.index);
	if (!q || s.num > 1)
		return -EPROTO;
	q->enabled = s.num;
	if (q->enabled && q->running)
		b->device->kicked(b, s.index);
	return 0;
}

static int vu_get_config(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	uint8_t out[VU_WIRE_PAYLOAD_MAX];
	struct vu_config c;
	int r = vu_wire_get_config(payload, len, &c);

	if (r < 0)
		return r;
	if (!(b->protocol_features >> VU_PROTOCOL_CONFIG & 1))
		return -EPROTO;
	memcpy(out, payload, VU_WIRE_CONFIG_HEADER);
	if (b->device->config(b, c.offset, out + VU_WIRE_CONFIG_HEADER, c.size) < 0)
		return vu_reply(b, out, 0); /* an empty reply is the protocol's "no" */
	return vu_reply(b, out, VU_WIRE_CONFIG_HEADER + c.size);
}

/* Nothing in the space can be written, which a device ignores; a refusal would end a VMM (Cloud Hypervisor). */
static int vu_set_config(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_config c;

	return vu_wire_get_config(payload, len, &c);
}

static vu_handler *const vu_handlers[VU_REQUEST_END] = {
	[VU_GET_FEATURES] = vu_get_features,
	[VU_SET_FEATURES] = vu_set_features,
	[VU_SET_OWNER] = vu_set_owner,
	[VU_RESET_OWNER] = vu_reset_owner,
	[VU_SET_MEM_TABLE] = vu_set_mem_table,
	[VU_SET_VRING_NUM] = vu_set_vring_num,
	[VU_SET_VRING_ADDR] = vu_set_vring_addr,
	[VU_SET_VRING_BASE] = vu_set_vring_base,
	[VU_GET_VRING_BASE] = vu_get_vring_base,
	[VU_SET_VRING_KICK] = vu_set_vring_kick,
	[VU_SET_VRING_CALL] = vu_set_vring_call,
	[VU_SET_VRING_ERR] = vu_set_vring_err,
	[VU_GET_PROTOCOL_FEATURES] = vu_get_protocol_features,
	[VU_SET_PROTOCOL_FEATURES] = vu_set_protocol_features,
	[VU_GET_QUEUE_NUM] = vu_get_queue_num,
	[VU_SET_VRING_ENABLE] = vu_set_vring_enable,
	[VU_GET_CONFIG] = vu_get_config,
	[VU_SET_CONFIG] = vu_set_config,
};

/* what a successor needs */

static void vu_save_queue(const struct vu_queue *q, struct vu_state_queue *ret)
{
	*ret = (struct vu_state_queue){ .num = q->num,
		.base = q->base,
		.stopped_at = q->stopped_at,
		.has_addr = q->has_addr,
		.enabled = q->enabled,
		.running = q->running,
		.was_running = q->was_running,
		.kick_slot = q->kick_slot,
		.call_slot = q->call_slot,
		.err_slot = q->err_slot,
		.addr = q->addr };
}

static void vu_save(struct vu_backend *b)
{
	struct vu_state s = { .features = b->features,
		.protocol_features = b->protocol_features,
		.table = b->table };

	static_assert(VU_STATE_QUEUES == VU_QUEUES_MAX, "every queue is saved");
	if (!b->keep)
		return;
	memcpy(s.region_slots, b->region_slots, sizeof s.region_slots);
	for (size_t i = 0; i < VU_QUEUES_MAX; i++)
		vu_save_queue(&b->queues[i], &s.queues[i]);
	vu_keep_commit(b->keep, &s);
}

/* receiving */

/* Takes the message that was peeked; it had N_FDS descriptors, no more and no fewer. */
static int vu_take(struct vu_backend *b, size_t n_fds)
{
	size_t len = VU_WIRE_HEADER_BYTES + b->header.size, n_taken = VU_WIRE_FDS_MAX;
	int fds[VU_WIRE_FDS_MAX];
	ssize_t n = fdpass_recv(b->fd, b->bytes, len, fds, &n_taken);

	if (n < 0)
		return (int)n;
	for (size_t i = 0; i < n_taken; i++)
		fd_close(fds[i]); /* the duplicates are ours already */
	return n == (ssize_t)len && n_taken == n_fds ? 0 : -EPROTO;
}

/* The message was obeyed: now it goes out of the socket, if it still lies there, and is answered. */
static int vu_finish_message(struct vu_backend *b, bool peeked, size_t n_fds)
{
	size_t len = VU_WIRE_HEADER_BYTES + b->header.size, out_bytes = b->out_bytes;
	int r = 0;

	vu_save(b);
	if (peeked && out_bytes > 0 && b->keep) {
		b->out_bytes = 0;
		return vu_keep_answer(b->keep, b->fd, len, n_fds > 0, b->out, out_bytes);
	}
	if (peeked)
		r = vu_take(b, n_fds);
	if (r == 0 && out_bytes > 0)
		r = vu_send_reply(b);
	if (r == 0 && !peeked)
		vu_keep_pieces(b->keep, false);
	return r;
}

static int vu_dispatch(struct vu_backend *b)
{
	const struct vu_shape *shape = vu_wire_shape(b->header.request);
	int r;

	if (b->n_fds < shape->fds_min || b->n_fds > shape->fds_max)
		return -EPROTO;
	r = vu_handlers[b->header.request](b, b->bytes + VU_WIRE_HEADER_BYTES, b->header.size);
	if (r < 0 || b->ended)
		return r;
	if ((b->header.flags & VU_FLAG_NEED_REPLY) && !shape->replies &&
		(b->protocol_features >> VU_PROTOCOL_REPLY_ACK & 1))
		return vu_reply_u64(b, (uint64_t)r);
	return 0;
}

/* Whether the message that was peeked says that descriptors are beside it. */
static bool vu_brings_fds(const struct vu_backend *b)
{
	const struct vu_shape *shape = vu_wire_shape(b->header.request);
	uint64_t v;

	if (shape->fds_max == 0)
		return false;
	if (shape->fds_min > 0 ||
		vu_wire_get_u64(b->bytes + VU_WIRE_HEADER_BYTES, b->header.size, &v) < 0)
		return true;
	return !(v & VU_VRING_NO_FD);
}

/*
 * 1: a whole message waits, and we have a copy; 0: it does not. Nothing is taken. A look at a message that has
 * no descriptors shows those of the next one (as of Linux 6.18), so it must not look for any.
 */
static int vu_peek(struct vu_backend *b)
{
	size_t want = VU_WIRE_HEADER_BYTES, n_fds = VU_WIRE_FDS_MAX;
	ssize_t n;
	int r;

	n = recv(b->fd, b->bytes, want, MSG_PEEK | MSG_DONTWAIT);
	if (n <= 0)
		return n < 0 ? -errno : -ENODATA;
	if (n != (ssize_t)want)
		return 0;
	b->header = (struct vu_header){ 0 };
	r = vu_wire_get_header(b->bytes, want, &b->header);
	if (r < 0)
		return r;
	want += b->header.size;
	n = recv(b->fd, b->bytes, want, MSG_PEEK | MSG_DONTWAIT);
	if (n != (ssize_t)want)
		return 0;
	if (!vu_brings_fds(b))
		return 1;
	n = fdpass_peek(b->fd, b->bytes, want, b->fds, &n_fds);
	if (n < 0)
		return (int)n;
	b->n_fds = n_fds;
	if (n == (ssize_t)want)
		return 1;
	vu_close_fds(b);
	return 0;
}

/* Reads what is missing of the header, then of the payload: 1 message whole, 0 not yet. */
static int vu_receive(struct vu_backend *b)
{
	size_t want, n_fds = VU_WIRE_FDS_MAX - b->n_fds;
	ssize_t n;

	want = VU_WIRE_HEADER_BYTES;
	if (b->have >= VU_WIRE_HEADER_BYTES)
		want += b->header.size;
	n = fdpass_recv(b->fd, b->bytes + b->have, want - b->have, b->fds + b->n_fds, &n_fds);
	if (n < 0)
		return n == -EAGAIN ? 0 : (int)n;
	b->n_fds += n_fds;
	if (n == 0)
		return b->have ? -EPIPE : -ENODATA;
	b->have += (size_t)n;
	if (b->have < want)
		return vu_receive(b);
	if (want == VU_WIRE_HEADER_BYTES) {
		int r;

		b->header = (struct vu_header){ 0 };
		r = vu_wire_get_header(b->bytes, b->have, &b->header);
		if (r < 0)
			return r;
		if (b->header.size > 0)
			return vu_receive(b);
	}
	b->have = 0;
	return 1;
}

/* A message that comes in pieces: what is read is gone from the socket. */
static int vu_receive_pieces(struct vu_backend *b)
{
	int r;

	vu_keep_pieces(b->keep, true);
	r = vu_receive(b);
	if (r == 0 && b->have == 0)
		vu_keep_pieces(b->keep, false);
	return r;
}

/* One message: 1, 0 when none is whole, -ENODATA at the end, -errno. */
static int vu_message(struct vu_backend *b)
{
	bool peeked = false;
	size_t n_fds;
	int r = 0;

	if (b->have == 0) {
		r = vu_peek(b);
		peeked = r > 0;
	}
	if (r == 0)
		r = vu_receive_pieces(b);
	if (r <= 0)
		return r == -EAGAIN || r == -EINTR ? 0 : r;
	n_fds = b->n_fds;
	r = vu_dispatch(b);
	vu_close_fds(b);
	if (r == 0 && !b->ended)
		r = vu_finish_message(b, peeked, n_fds);
	return r < 0 ? r : 1;
}

static const char *vu_describe(const struct vu_backend *b, int error)
{
	const struct vu_shape *shape = vu_wire_shape(b->header.request);

	if (error == -EPERM && b->header.request == VU_SET_MEM_TABLE)
		return "SET_MEM_TABLE: guest memory is not sealed against shrinking (seal=on)";
	if (error == -EOPNOTSUPP)
		return "unknown request";
	return shape ? shape->name : "header";
}

static void vu_readable(struct loop_source *s, uint32_t events)
{
	struct vu_backend *b = CONTAINER_OF(s, struct vu_backend, source);
	int r = 1;

	for (int i = 0; i < VU_MESSAGES_PER_TURN && r > 0 && !b->ended; i++)
		r = vu_message(b);
	if (r == -ENODATA)
		vu_end(b, 0, "end of file");
	else if (r < 0)
		vu_end(b, r, vu_describe(b, r));
}

int vu_backend_open(
	struct vu_backend *b, struct loop *loop, const struct vu_device *device, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	int r;

	*b = (struct vu_backend){ .device = device, .loop = loop, .fd = -EBADF };
	guest_mem_init(&b->mem, false);
	memset(b->region_slots, KEEPER_SLOT_NONE, sizeof b->region_slots);
	for (int i = 0; i < VU_QUEUES_MAX; i++) {
		struct vu_queue *q = &b->queues[i];

		q->backend = b;
		q->kick_fd = q->call_fd = q->err_fd = -EBADF;
		q->kick_slot = q->call_slot = q->err_slot = KEEPER_SLOT_NONE;
		loop_source_init(&q->kick, vu_queue_kicked);
	}
	loop_source_init(&b->source, vu_readable);
	r = fd_set_nonblock(fd, 1);
	if (r < 0)
		return r;
	r = loop_source_add(loop, &b->source, fd, EPOLLIN);
	if (r < 0)
		return r;
	b->fd = TAKE_FD(fd);
	return 0;
}

void vu_backend_close(struct vu_backend *b)
{
	b->ended = true;
	vu_close_fds(b);
	for (unsigned i = 0; i < VU_QUEUES_MAX; i++) {
		struct vu_queue *q = &b->queues[i];

		vu_queue_stop(q);
		q->call_fd = fd_close(q->call_fd);
		q->err_fd = fd_close(q->err_fd);
	}
	loop_source_remove(b->loop, &b->source);
	guest_mem_finish(&b->mem);
	b->fd = fd_close(b->fd);
}
