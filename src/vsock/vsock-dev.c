#include "vsock-dev.h"

#include <endian.h>
#include <errno.h>
#include <linux/virtio_vsock.h>
#include <string.h>

enum {
	VSOCK_QUEUE_RX, /* to the guest */
	VSOCK_QUEUE_TX, /* from the guest */
	VSOCK_QUEUE_EVENT,
	VSOCK_QUEUES,
};

static struct vsock_dev *vsock_dev_of(struct vu_backend *b)
{
	return CONTAINER_OF(b, struct vsock_dev, backend);
}

void vsock_dev_wake(struct vsock_dev *d)
{
	loop_job_add(d->loop, &d->job);
}

/* A chain as its first VSOCK_HEADER_BYTES and the rest. */
struct vsock_split {
	struct iovec head[VSOCK_HEADER_BYTES]; /* at worst a byte each */
	size_t n_head;
	struct iovec *rest; /* borrowed: in the chain */
	size_t n_rest;
};

/* IOV holds VSOCK_HEADER_BYTES at least, in N pieces, none empty. */
static void vsock_split(struct vsock_split *s, struct iovec *iov, size_t n)
{
	size_t left = VSOCK_HEADER_BYTES;

	s->n_head = 0;
	while (left > 0) {
		size_t part = iov->iov_len < left ? iov->iov_len : left;

		s->head[s->n_head++] = (struct iovec){ iov->iov_base, part };
		left -= part;
		iov->iov_base = (uint8_t *)iov->iov_base + part;
		iov->iov_len -= part;
		if (iov->iov_len == 0)
			iov++, n--;
	}
	s->rest = iov;
	s->n_rest = n;
}

static void vsock_split_get(const struct vsock_split *s, struct vsock_pkt *ret)
{
	uint8_t bytes[VSOCK_HEADER_BYTES], *p = bytes;

	for (size_t i = 0; i < s->n_head; i++) {
		memcpy(p, s->head[i].iov_base, s->head[i].iov_len);
		p += s->head[i].iov_len;
	}
	__asm__ volatile("" : : "r"(bytes) : "memory"); /* the guest may change them meanwhile */
	vsock_wire_get(bytes, sizeof bytes, ret);
}

static void vsock_split_put(const struct vsock_split *s, const struct vsock_pkt *pkt)
{
	uint8_t bytes[VSOCK_HEADER_BYTES], *p = bytes;

	vsock_wire_put(bytes, pkt);
	for (size_t i = 0; i < s->n_head; i++) {
		memcpy(s->head[i].iov_base, p, s->head[i].iov_len);
		p += s->head[i].iov_len;
	}
}

/* The next chain: 1, or 0 when there is none and a kick is asked for, or the queue has broken. */
static int vsock_dev_pop(struct vsock_dev *d, unsigned queue, struct virtq *q)
{
	int r;

	do
		r = virtq_pop(q, &d->backend.mem, &d->chain);
	while (r == 0 && virtq_arm(q));
	if (r < 0)
		d->hooks->broken(d, queue);
	return r > 0;
}

static void vsock_dev_packet(struct vsock_dev *d)
{
	struct virtq_chain *c = &d->chain;
	struct vsock_split s;
	struct vsock_pkt p;

	if (c->out_bytes < VSOCK_HEADER_BYTES)
		return; /* no packet, nobody to answer */
	vsock_split(&s, c->out, c->n_out);
	vsock_split_get(&s, &p);
	vsock_mux_input(d->mux, &p, s.rest, s.n_rest, c->out_bytes - VSOCK_HEADER_BYTES);
}

/* Takes what the guest sends. True: there may be more. */
static bool vsock_dev_from_guest(struct vsock_dev *d)
{
	struct virtq *q = vu_backend_queue(&d->backend, VSOCK_QUEUE_TX);
	int budget = VSOCK_DEV_BUDGET;

	if (!q)
		return false;
	virtq_disarm(q);
	while (budget > 0 && vsock_mux_has_room(d->mux) && vsock_dev_pop(d, VSOCK_QUEUE_TX, q)) {
		vsock_dev_packet(d);
		virtq_push(q, &d->chain, 0);
		budget--;
	}
	vu_backend_call(&d->backend, VSOCK_QUEUE_TX);
	return budget == 0;
}

/* One packet into the chain that was popped; false when there was none and it went back. */
static bool vsock_dev_deliver(struct vsock_dev *d, struct virtq *q)
{
	struct virtq_chain *c = &d->chain;
	struct vsock_split s;
	struct vsock_pkt p;

	vsock_split(&s, c->in, c->n_in);
	if (!vsock_mux_output(d->mux, &p, s.rest, s.n_rest, c->in_bytes - VSOCK_HEADER_BYTES)) {
		virtq_unpop(q);
		return false;
	}
	vsock_split_put(&s, &p);
	virtq_push(q, c, VSOCK_HEADER_BYTES + p.len);
	return true;
}

/* Fills the guest's buffers. True: there may be more. */
static bool vsock_dev_to_guest(struct vsock_dev *d)
{
	struct virtq *q = vu_backend_queue(&d->backend, VSOCK_QUEUE_RX);
	int budget = VSOCK_DEV_BUDGET;

	if (!q)
		return false;
	virtq_disarm(q);
	while (budget > 0 && vsock_mux_has_output(d->mux) && vsock_dev_pop(d, VSOCK_QUEUE_RX, q)) {
		if (d->chain.n_out > 0 || d->chain.in_bytes < VSOCK_HEADER_BYTES) {
			q->broken = true; /* no buffer for a packet */
			d->hooks->broken(d, VSOCK_QUEUE_RX);
			return false;
		}
		budget -= vsock_dev_deliver(d, q);
	}
	vu_backend_call(&d->backend, VSOCK_QUEUE_RX);
	return budget == 0;
}

static void vsock_dev_speak(struct vsock_dev *d)
{
	d->news = VSOCK_DEV_NO_NEWS;
	loop_timer_clear(&d->quiet);
}

static void vsock_dev_quiet(struct loop_timer *t)
{
	struct vsock_dev *d = CONTAINER_OF(t, struct vsock_dev, quiet);

	vsock_dev_speak(d);
	vsock_dev_wake(d);
}

/* Tells a guest that has used another device that its connections are gone. */
static void vsock_dev_tell_reset(struct vsock_dev *d, struct virtq *q)
{
	const uint32_t event = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	struct virtq_chain *c = &d->chain;

	if (!vsock_dev_pop(d, VSOCK_QUEUE_EVENT, q))
		return;
	if (c->n_in == 0 || c->in[0].iov_len < sizeof event) {
		q->broken = true; /* no buffer for an event */
		d->hooks->broken(d, VSOCK_QUEUE_EVENT);
		return;
	}
	memcpy(c->in[0].iov_base, &event, sizeof event);
	d->event_avail = virtq_watch(q);
	virtq_push(q, c, sizeof event);
	vu_backend_call(&d->backend, VSOCK_QUEUE_EVENT);
	d->news = VSOCK_DEV_TOLD;
}

/* True as long as the guest has not read its news: what it is given before, it would forget without a word. */
static bool vsock_dev_has_news(struct vsock_dev *d)
{
	struct virtq *q = vu_backend_queue(&d->backend, VSOCK_QUEUE_EVENT);

	if (d->news == VSOCK_DEV_OWED && q)
		vsock_dev_tell_reset(d, q);
	/* a driver puts the buffer back when it has read it */
	if (d->news == VSOCK_DEV_TOLD && q && virtq_watch(q) != d->event_avail)
		vsock_dev_speak(d);
	return d->news != VSOCK_DEV_NO_NEWS;
}

static void vsock_dev_turn(struct loop_job *j)
{
	struct vsock_dev *d = CONTAINER_OF(j, struct vsock_dev, job);
	bool stalled, more;

	if (vsock_dev_has_news(d))
		return;
	more = vsock_dev_from_guest(d);
	stalled = !vsock_mux_has_room(d->mux);
	more |= vsock_dev_to_guest(d);
	vsock_mux_settle(d->mux);
	if (more || (stalled && vsock_mux_has_room(d->mux)))
		vsock_dev_wake(d);
}

static int vsock_dev_config(struct vu_backend *b, uint32_t offset, void *ret, uint32_t len)
{
	const uint64_t cid = htole64(vsock_dev_of(b)->mux->guest_cid);
	uint8_t space[VU_WIRE_CONFIG_MAX] = { 0 };

	if (offset > sizeof space || len > sizeof space - offset)
		return -EINVAL;
	/* behind the CID there is nothing: a guest may look there, and a refusal would end a VMM */
	memcpy(space, &cid, sizeof cid);
	memcpy(ret, space + offset, len);
	return 0;
}

static void vsock_dev_kicked(struct vu_backend *b, unsigned queue)
{
	vsock_dev_wake(vsock_dev_of(b));
}

static void vsock_dev_started(struct vu_backend *b, unsigned queue, enum vu_begin how)
{
	struct vsock_dev *d = vsock_dev_of(b);

	loop_timer_clear(&d->absent);
	if (how == VU_BEGIN_STRANGE) {
		d->news = VSOCK_DEV_OWED;
		loop_timer_set(d->loop, &d->quiet, VSOCK_DEV_QUIET_USEC);
	}
	if (how == VU_BEGIN_ON || !d->stopped)
		return;
	d->stopped = false;
	vsock_mux_guest_reset(d->mux);
}

static void vsock_dev_stopped(struct vu_backend *b, unsigned queue)
{
	struct vsock_dev *d = vsock_dev_of(b);

	d->stopped = true;
	if (!b->queues[VSOCK_QUEUE_RX].running && !b->queues[VSOCK_QUEUE_TX].running)
		loop_timer_set(d->loop, &d->absent, VSOCK_DEV_ABSENT_USEC);
}

static void vsock_dev_absent(struct loop_timer *t)
{
	vsock_mux_guest_absent(CONTAINER_OF(t, struct vsock_dev, absent)->mux);
}

static void vsock_dev_ended(struct vu_backend *b, int error, const char *what)
{
	vsock_dev_of(b)->hooks->ended(vsock_dev_of(b), error, what);
}

static const struct vu_device vsock_dev_device = {
	.n_queues = VSOCK_QUEUES,
	.config = vsock_dev_config,
	.kicked = vsock_dev_kicked,
	.started = vsock_dev_started,
	.stopped = vsock_dev_stopped,
	.ended = vsock_dev_ended,
};

int vsock_dev_open(struct vsock_dev *d, struct loop *loop, struct vsock_mux *mux,
	const struct vsock_dev_hooks *hooks, int fd_consume)
{
	d->mux = mux;
	d->hooks = hooks;
	d->loop = loop;
	d->stopped = false;
	d->news = VSOCK_DEV_NO_NEWS;
	loop_job_init(&d->job, vsock_dev_turn);
	loop_timer_init(&d->absent, vsock_dev_absent);
	loop_timer_init(&d->quiet, vsock_dev_quiet);
	return vu_backend_open(&d->backend, loop, &vsock_dev_device, fd_consume);
}

int vsock_dev_resume(struct vsock_dev *d, struct vu_keep *keep)
{
	return vu_resume(&d->backend, keep);
}

void vsock_dev_close(struct vsock_dev *d)
{
	vu_backend_close(&d->backend);
	loop_job_clear(&d->job);
	loop_timer_clear(&d->absent);
	loop_timer_clear(&d->quiet);
}
