#include "vsock-handover.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"

static int vsock_handover_say(
	struct vsock_handover *v, const struct vsock_handover_msg *m, int sock, int fd)
{
	size_t len = VSOCK_HANDOVER_BYTES + m->conn.ring_bytes;
	ssize_t n;

	vsock_handover_put(v->bytes, m);
	n = fdpass_send(sock, v->bytes, len, &fd, fd >= 0);
	v->count++;
	return n < 0 ? (int)n : n == (ssize_t)len ? 0 : -EIO;
}

static int vsock_handover_say_conn(struct vsock_handover *v, const struct vsock_conn *c, int sock)
{
	struct vsock_handover_msg m = { .kind = VSOCK_HANDOVER_CONN };
	uint8_t *to = v->bytes + VSOCK_HANDOVER_BYTES;
	struct iovec iov[2];
	int n;

	vsock_conn_save(c, &m.conn);
	n = ring_iov(&c->ring, iov);
	for (int i = 0; i < n; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	return vsock_handover_say(v, &m, sock, c->fd);
}

static int vsock_handover_say_pendings(
	struct vsock_handover *v, const struct vsock_host *h, int sock)
{
	int r = 0;

	for (const struct list *l = h->waiting.next; r == 0 && l != &h->waiting; l = l->next) {
		const struct vsock_pending *p = CONTAINER_OF(l, struct vsock_pending, link);
		struct vsock_handover_msg m = { .kind = VSOCK_HANDOVER_PENDING,
			.conn.timer_usec = loop_timer_left(&p->timer) };

		r = vsock_handover_say(v, &m, sock, p->fd);
	}
	return r;
}

static int vsock_handover_say_resets(
	struct vsock_handover *v, const struct vsock_mux *mux, int sock)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < mux->n_resets; i++) {
		const struct vsock_pkt *p = &mux->resets[(mux->resets_head + i) % VSOCK_RESETS_MAX];
		struct vsock_handover_msg m = { .kind = VSOCK_HANDOVER_RESET,
			.conn.key = { p->src_cid, p->src_port, p->dst_port, p->type } };

		r = vsock_handover_say(v, &m, sock, -EBADF);
	}
	return r;
}

/* -EPIPE: the other is gone, and will never act. What does not answer in time may have understood. */
static int vsock_handover_wait_taken(struct vsock_handover *v, int sock)
{
	size_t n_fds = 0;
	ssize_t n = fdpass_recv(sock, v->bytes, sizeof v->bytes, NULL, &n_fds);

	return n == 0 || n == -ECONNRESET || n == -EPIPE ? -EPIPE : 0;
}

int vsock_handover_send(
	struct vsock_handover *v, const struct vsock_mux *m, const struct vsock_host *h, int sock)
{
	int r = 0;

	v->count = 0;
	for (size_t i = 0; r == 0 && i < VSOCK_CONNS_MAX; i++) {
		if (m->table.conns[i].state != VSOCK_FREE)
			r = vsock_handover_say_conn(v, &m->table.conns[i], sock);
	}
	if (r == 0)
		r = vsock_handover_say_pendings(v, h, sock);
	if (r == 0)
		r = vsock_handover_say_resets(v, m, sock);
	if (r == 0)
		r = vsock_handover_say(v,
			&(struct vsock_handover_msg){
				.kind = VSOCK_HANDOVER_END, .count = v->count },
			sock, -EBADF);
	return r < 0 ? r : vsock_handover_wait_taken(v, sock);
}

/* As we make our own. */
static int vsock_handover_check_fd(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISSOCK(st.st_mode) ? fd_set_nonblock(fd, 1) : -ENOTSOCK;
}

static int vsock_handover_take(struct vsock_handover *v, const struct vsock_handover_msg *m,
	struct vsock_mux *mux, struct vsock_host *h, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	int r = fd >= 0 ? vsock_handover_check_fd(fd) : 0;

	if (r < 0)
		return r;
	switch (m->kind) {
	case VSOCK_HANDOVER_CONN:
		return vsock_mux_restore(
			mux, &m->conn, v->bytes + VSOCK_HANDOVER_BYTES, TAKE_FD(fd));
	case VSOCK_HANDOVER_PENDING: return vsock_host_restore(h, m->conn.timer_usec, TAKE_FD(fd));
	case VSOCK_HANDOVER_RESET: return vsock_mux_restore_reset(mux, &m->conn.key);
	case VSOCK_HANDOVER_END: return m->count == v->count ? 1 : -EBADMSG;
	default: return -EBADMSG;
	}
}

/* 1: that was all, 0: there is more, or -errno. */
static int vsock_handover_receive_one(
	struct vsock_handover *v, struct vsock_mux *m, struct vsock_host *h, int sock)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct vsock_handover_msg msg;
	size_t n_fds = 1;
	ssize_t n;
	int r;

	n = fdpass_recv(sock, v->bytes, sizeof v->bytes, &fd, &n_fds);
	if (n <= 0)
		return n < 0 ? (int)n : -EPIPE;
	r = vsock_handover_get(v->bytes, (size_t)n, n_fds, &msg);
	if (r == 0)
		r = vsock_handover_take(v, &msg, m, h, TAKE_FD(fd));
	v->count++;
	return r;
}

int vsock_handover_receive(
	struct vsock_handover *v, struct vsock_mux *m, struct vsock_host *h, int sock)
{
	int r;

	v->count = 0;
	do
		r = vsock_handover_receive_one(v, m, h, sock);
	while (r == 0);
	if (r < 0)
		return r;
	/* when he does not hear of it, he has died, or waits no longer: in both cases he serves nobody */
	(void)vsock_handover_say(
		v, &(struct vsock_handover_msg){ .kind = VSOCK_HANDOVER_TAKEN }, sock, -EBADF);
	return 0;
}
