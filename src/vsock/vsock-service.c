#include "vsock-service.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "fd.h"
#include "log.h"

static void vsock_service_wake(struct vsock_mux *m)
{
	vsock_dev_wake(&CONTAINER_OF(m, struct vsock_service, mux)->dev);
}

static int vsock_service_dial(struct vsock_mux *m, uint32_t port)
{
	return vsock_host_dial(&CONTAINER_OF(m, struct vsock_service, mux)->host, port);
}

static void vsock_service_refused(
	struct vsock_mux *m, enum vsock_way way, uint32_t port, const char *why)
{
	struct vsock_service *s = CONTAINER_OF(m, struct vsock_service, mux);
	uint32_t n;

	if (!ratelimit_pass(&s->refusals, loop_now_usec(), &n))
		return;
	log_info("refused %s port %u: %s",
		way == VSOCK_GUEST_TO_HOST ? "the guest's call to" : "a call to the guest's", port,
		why);
	if (n > 0)
		log_info("%u refusals before it were not logged", n);
}

static void vsock_service_served(struct vsock_mux *m)
{
	struct vsock_service *s = CONTAINER_OF(m, struct vsock_service, mux);

	if (s->is_kept)
		(void)vu_keep_tell(&s->keep, KEEPER_SERVED);
}

static const struct vsock_mux_hooks vsock_service_mux_hooks = {
	.wake = vsock_service_wake,
	.dial = vsock_service_dial,
	.refused = vsock_service_refused,
	.served = vsock_service_served,
};

static void vsock_service_broken(struct vsock_dev *d, unsigned queue)
{
	log_warning("the guest broke queue %u: stopped until its driver starts anew", queue);
}

static void vsock_service_ended(struct vsock_dev *d, int error, const char *what)
{
	struct vsock_service *s = CONTAINER_OF(d, struct vsock_service, dev);

	if (error < 0)
		log_error("vhost-user session failed at %s: %s", what, strerror(-error));
	else
		log_info("the VMM is gone");
	loop_stop(&s->loop, error < 0 ? 1 : 0);
}

static const struct vsock_dev_hooks vsock_service_dev_hooks = {
	.broken = vsock_service_broken,
	.ended = vsock_service_ended,
};

static void vsock_service_called(struct vsock_host *h, uint32_t port, int fd_consume)
{
	struct vsock_service *s = CONTAINER_OF(h, struct vsock_service, host);
	int r = vsock_mux_call(&s->mux, port, fd_consume);

	if (r < 0)
		log_debug("call to port %u: %s", port, strerror(-r));
}

/* Between two turns: what the loop has still to do in this one is another's now. */
static void vsock_service_leave(struct vsock_service *s)
{
	vsock_dev_close(&s->dev);
	vsock_host_close(&s->host);
	vsock_mux_finish(&s->mux);
	s->is_over = true;
	loop_stop(&s->loop, VSOCK_SERVICE_HANDED_OVER);
}

static void vsock_service_hand_over(struct vu_keep *k, int channel_consume)
{
	struct vsock_service *s = CONTAINER_OF(k, struct vsock_service, keep);
	CLEANUP_CLOSE int channel = channel_consume;
	int r = -EBUSY;

	/* a message of the VMM that came in pieces cannot be handed over */
	if (s->dev.backend.have == 0)
		r = vsock_handover_send(&s->handover, &s->mux, &s->host, channel);
	if (r == 0) {
		log_info("handed %u connections over", s->mux.table.n_used);
		vsock_service_leave(s);
		return;
	}
	log_warning("nothing is handed over: %s", strerror(-r));
	(void)vu_keep_tell(k, KEEPER_STAYS);
}

/* Deaf to the keeper we would only be in the way; a successor hears. */
static void vsock_service_deaf(struct vu_keep *k, int error)
{
	struct vsock_service *s = CONTAINER_OF(k, struct vsock_service, keep);

	log_error("the keeper's channel failed: %s", strerror(-error));
	loop_stop(&s->loop, 1);
}

int vsock_service_start(struct vsock_service *s, const struct vsockd_args *a, uint64_t seed)
{
	int r;

	s->refusals = (struct ratelimit){ .interval_usec = 10000000, .burst = 10 };
	r = loop_init(&s->loop);
	if (r < 0)
		return r;
	r = vsock_mux_init(&s->mux, &s->loop, &vsock_service_mux_hooks, a->cid, seed);
	if (r < 0)
		return r;
	r = vsock_host_open(&s->host, &s->loop, a->path, vsock_service_called, a->listen_fd);
	if (r < 0)
		return r;
	r = vsock_dev_open(&s->dev, &s->loop, &s->mux, &vsock_service_dev_hooks, a->vhost_fd);
	if (r < 0)
		return r;
	if (a->may_shrink)
		vu_backend_allow_shrinking(&s->dev.backend);
	s->table_fd = a->table_fd;
	s->from_fd = a->from_fd;
	if (a->table_fd >= 0)
		r = vsock_table_grow(a->table_fd);
	if (r < 0)
		return r;
	s->is_kept = a->keeper_fd >= 0;
	if (!s->is_kept)
		return 0;
	r = vu_keep_open(&s->keep, a->keeper_fd, a->state_fd);
	s->keep.handover = vsock_service_hand_over;
	s->keep.failed = vsock_service_deaf;
	fd_close(a->state_fd); /* the mapping keeps it */
	return r;
}

/* What the host lacks now it may have later: the next process has another try. */
static bool vsock_service_is_passing(int error)
{
	switch (-error) {
	case ENOMEM:
	case ENOSPC:
	case EMFILE:
	case ENFILE:
	case EAGAIN:
	case EINTR:
	case EIO: return true;
	default: return false;
	}
}

static int vsock_service_resume(struct vsock_service *s)
{
	int r;

	if (!s->is_kept)
		return 0;
	r = vu_keep_receive(&s->keep);
	if (r < 0)
		return r;
	r = vsock_dev_resume(&s->dev, &s->keep);
	if (vsock_service_is_passing(r))
		return r;
	if (r < 0) {
		log_error("the vhost-user session cannot be taken over: %s",
			r == -ESTALE    ? "the device died in the middle of a request of the VMM"
			: r == -ENODATA ? "a descriptor is missing"
					: "the state that was left is not to be used");
		return VSOCK_SERVICE_LOST;
	}
	if (r > 0)
		log_info("took the vhost-user session over");
	vu_keep_drop_rest(&s->keep);
	return vu_keep_watch(&s->keep, &s->loop);
}

/* All or nothing: without its END what came is closed again, and reset as after a death. */
static int vsock_service_receive(struct vsock_service *s)
{
	struct vsock_mux *m = &s->mux;
	uint64_t cid = m->guest_cid, seed = m->table.seed;
	int r;

	if (s->from_fd < 0)
		return 0;
	r = vu_keep_tell(&s->keep, KEEPER_WAITS);
	if (r == 0)
		r = vsock_handover_receive(&s->handover, m, &s->host, s->from_fd);
	s->from_fd = fd_close(s->from_fd);
	if (r == 0) {
		log_info("%u connections were handed over", m->table.n_used);
		return 0;
	}
	log_warning("no handover: %s", strerror(-r));
	vsock_host_drop(&s->host);
	vsock_mux_finish(m);
	return vsock_mux_init(m, &s->loop, &vsock_service_mux_hooks, cid, seed);
}

int vsock_service_take_over(struct vsock_service *s)
{
	int r = vsock_service_receive(s);

	if (r == 0)
		r = vsock_service_resume(s);
	if (r != 0)
		return r;
	if (s->table_fd >= 0)
		r = vsock_mux_publish(&s->mux, s->table_fd);
	s->table_fd = fd_close(s->table_fd); /* the mapping keeps it */
	if (r == 0 && s->is_kept)
		r = vu_keep_tell(&s->keep, KEEPER_UP);
	return r;
}

int vsock_service_run(struct vsock_service *s)
{
	return loop_run(&s->loop);
}

void vsock_service_finish(struct vsock_service *s)
{
	if (!s->is_over)
		vsock_dev_close(&s->dev);
	if (s->is_kept)
		vu_keep_close(&s->keep);
	if (!s->is_over) {
		vsock_host_close(&s->host);
		vsock_mux_finish(&s->mux);
	}
	loop_finish(&s->loop);
}
