#include "vu-backend.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"

#define VU_MESSAGES_PER_TURN 16

#define VU_TRANSPORT_FEATURES                                                                      \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |                        \
		1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VU_FEATURE_PROTOCOL)
#define VU_PROTOCOL_FEATURES                                                                       \
	(1ULL << VU_PROTOCOL_MQ | 1ULL << VU_PROTOCOL_REPLY_ACK | 1ULL << VU_PROTOCOL_CONFIG)

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

void vu_backend_call(struct vu_backend *b, unsigned queue)
{
	static const uint64_t one = 1;
	struct virtq *vq = vu_backend_queue(b, queue);

	/* non-blocking: a full eventfd has told already */
	if (vq && virtq_wants_call(vq) && b->queues[queue].call_fd >= 0 &&
		write(b->queues[queue].call_fd, &one, sizeof one) < 0)
		return;
}

static void vu_queue_kicked(struct loop_source *s, uint32_t events)
{
	struct vu_queue *q = CONTAINER_OF(s, struct vu_queue, kick);
	struct vu_backend *b = q->backend;
	uint64_t count;

	/* edge-triggered, so a descriptor that never runs dry costs nothing */
	if (read(q->kick_fd, &count, sizeof count) < 0 && errno != EAGAIN && errno != EINTR)
		return;
	b->device->kicked(b, (unsigned)(q - b->queues));
}

/* Finds the three parts of the ring in memory. */
static int vu_queue_translate(struct vu_queue *q, struct virtq_parts *ret)
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
	r = vu_queue_translate(q, &parts);
	if (r < 0)
		return r;
	r = loop_source_add(b->loop, &q->kick, fd, EPOLLIN | EPOLLET);
	if (r < 0)
		return r;
	q->kick_fd = TAKE_FD(fd);
	virtq_start(&q->vq, &parts, (uint16_t)q->num, q->base,
		vu_backend_has(b, VIRTIO_RING_F_EVENT_IDX),
		vu_backend_has(b, VIRTIO_RING_F_INDIRECT_DESC));
	q->running = true;
	b->device->started(b, index, q->was_running && q->base != q->stopped_at);
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
		r = vu_queue_translate(&b->queues[i], &b->queues[i].vq.parts);
		if (r < 0)
			return r;
	}
	return 0;
}

static struct vu_queue *vu_queue_at(struct vu_backend *b, uint64_t index)
{
	return index < b->device->n_queues ? &b->queues[index] : NULL;
}

/* replies */

static int vu_reply(struct vu_backend *b, const void *payload, uint32_t len)
{
	uint8_t out[VU_WIRE_HEADER_BYTES + VU_WIRE_PAYLOAD_MAX];
	ssize_t n;

	vu_wire_put_reply(out, b->header.request, len);
	memcpy(out + VU_WIRE_HEADER_BYTES, payload, len);
	do
		n = send(b->fd, out, VU_WIRE_HEADER_BYTES + len, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == (ssize_t)(VU_WIRE_HEADER_BYTES + len) ? 0 : -EAGAIN;
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
	guest_mem_init(&mem);
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
	fd_close(q->call_fd);
	q->call_fd = fd;
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
	fd_close(q->err_fd);
	q->err_fd = fd;
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

/* Nothing in the space can be written; with NEED_REPLY that is said (1), without it is ignored. */
static int vu_set_config(struct vu_backend *b, const uint8_t *payload, size_t len)
{
	struct vu_config c;
	int r = vu_wire_get_config(payload, len, &c);

	return r < 0 ? r : 1;
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

/* receiving */

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

	for (int i = 0; i < VU_MESSAGES_PER_TURN && r > 0 && !b->ended; i++) {
		r = vu_receive(b);
		if (r == -ENODATA) {
			vu_end(b, 0, "end of file");
			return;
		}
		if (r > 0) {
			int q = vu_dispatch(b);

			vu_close_fds(b);
			r = q < 0 ? q : 1;
		}
	}
	if (r < 0)
		vu_end(b, r, vu_describe(b, r));
}

int vu_backend_open(
	struct vu_backend *b, struct loop *loop, const struct vu_device *device, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	int r;

	*b = (struct vu_backend){ .device = device, .loop = loop, .fd = -EBADF };
	guest_mem_init(&b->mem);
	for (int i = 0; i < VU_QUEUES_MAX; i++) {
		struct vu_queue *q = &b->queues[i];

		q->backend = b;
		q->kick_fd = q->call_fd = q->err_fd = -EBADF;
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
