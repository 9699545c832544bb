#include "guest-forward.h"

#include "cleanup.h"
#include "fd.h"
#include "guest-transport.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CONNECT_MS 10000
#define PORT_MAX   65535

/* One direction: from END[i] to the other one. */
struct half {
	uint8_t *left; /* owned: what was read and not taken; NULL: nothing */
	size_t start, len;
	bool eof;  /* nothing more will be read */
	bool done; /* and all of it was written and half-closed */
};

struct guest_forward {
	struct guest_forward_set *set; /* borrowed */
	struct guest_frames *frames;   /* borrowed; NULL once opened */
	struct guest_timer timer;
	struct guest_source source[2]; /* 0: the host, 1: the service */
	int fd[2];                     /* owned */
	struct half half[2];
	bool try_ipv6;
	uint16_t port;
	void (*opened)(void *user, int error);
	void *user;
};

static int dial_tcp(uint16_t port, bool ipv6)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6,
		.sin6_port = htons(port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT };
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	fd = socket(ipv6 ? AF_INET6 : AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = ipv6 ? connect(fd, (struct sockaddr *)&v6, sizeof v6)
		 : connect(fd, (struct sockaddr *)&v4, sizeof v4);
	if (r < 0 && errno != EINPROGRESS)
		return -errno;
	return TAKE_FD(fd);
}

static int dial_unix(const struct wire_str *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = -EBADF;

	if (path->len == 0 || path->s[0] != '/')
		return -EINVAL;
	if (path->len >= sizeof sa.sun_path)
		return -ENAMETOOLONG;
	memcpy(sa.sun_path, path->s, path->len);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int forward_dial(struct guest_forward *f, const struct agent_wire_msg *m)
{
	if (m->forward.kind == AGENT_FORWARD_UNIX)
		return dial_unix(&m->forward.path);
	if (m->forward.kind == AGENT_FORWARD_VSOCK)
		return guest_transport_dial_local_vsock(m->forward.port);
	if (m->forward.port == 0 || m->forward.port > PORT_MAX)
		return -EINVAL;
	f->port = (uint16_t)m->forward.port;
	f->try_ipv6 = true;
	return dial_tcp(f->port, false);
}

static void send_failed(struct guest_frames *frames, int error)
{
	guest_frames_send(
		frames, &(struct agent_wire_msg){ .type = AGENT_WIRE_FAILED,
				.failed = { 1, (uint32_t)error, wire_str_from(strerror(error)) } });
}

static void send_too_many(struct guest_frames *frames, size_t n)
{
	char text[64];

	snprintf(text, sizeof text, "too many forwards: %zu are open", n);
	guest_frames_send(frames, &(struct agent_wire_msg){ .type = AGENT_WIRE_FAILED,
					  .failed = { 1, EAGAIN, wire_str_from(text) } });
}

static void forward_fail(struct guest_forward *f, int error)
{
	void (*opened)(void *, int) = f->opened;
	void *user = f->user;

	send_failed(f->frames, error);
	guest_forward_destroy(f);
	opened(user, -error);
}

/* ---- connected ---- */

static int half_send(int fd, const uint8_t *bytes, size_t n, size_t *ret_sent)
{
	*ret_sent = 0;
	while (*ret_sent < n) {
		ssize_t r = send(fd, bytes + *ret_sent, n - *ret_sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		*ret_sent += (size_t)r;
	}
	return 0;
}

static int half_keep(struct half *h, const uint8_t *bytes, size_t n)
{
	if (n == 0)
		return 0;
	h->left = malloc(n);
	if (!h->left)
		return -ENOMEM;
	memcpy(h->left, bytes, n);
	h->start = 0;
	h->len = n;
	return 0;
}

static int half_write(struct half *h, int to)
{
	size_t sent;
	int r;

	if (!h->left)
		return 0;
	r = half_send(to, h->left + h->start, h->len, &sent);
	h->start += sent;
	h->len -= sent;
	if (h->len == 0)
		free(TAKE_PTR(h->left));
	return r;
}

/* By way of the set's buffer: only what is not taken costs memory. */
static int half_read(struct half *h, struct guest_forward_set *set, int from, int to)
{
	size_t size = set->n > GUEST_FORWARD_MANY ? GUEST_FORWARD_BYTES_MANY : GUEST_FORWARD_BYTES;
	size_t sent;
	ssize_t n;
	int r;

	if (h->eof || h->left)
		return 0;
	n = recv(from, set->scratch, size, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		h->eof = true;
	r = half_send(to, set->scratch, (size_t)n, &sent);
	return r < 0 ? r : half_keep(h, set->scratch + sent, (size_t)n - sent);
}

static int half_pump(struct half *h, struct guest_forward_set *set, int from, int to)
{
	int r = half_write(h, to);

	if (r == 0)
		r = half_read(h, set, from, to);
	if (r == 0 && h->eof && !h->left && !h->done) {
		h->done = true;
		shutdown(to, SHUT_WR);
	}
	return r;
}

static void forward_update(struct guest_forward *f)
{
	for (size_t i = 0; i < 2; i++) {
		const struct half *from = &f->half[i], *to = &f->half[1 - i];

		guest_source_set(&f->source[i],
			(!from->eof && !from->left ? EPOLLIN : 0) | (to->left ? EPOLLOUT : 0));
	}
}

/* END[i] is ready: for what comes from it, for what goes to it, or both. */
static void forward_pump(struct guest_forward *f, size_t i, uint32_t events)
{
	int r = 0;

	if (events & ~(uint32_t)EPOLLOUT)
		r = half_pump(&f->half[i], f->set, f->fd[i], f->fd[1 - i]);
	if (r == 0 && (events & ~(uint32_t)EPOLLIN))
		r = half_pump(&f->half[1 - i], f->set, f->fd[1 - i], f->fd[i]);
	if (r < 0 || (f->half[0].done && f->half[1].done))
		guest_forward_destroy(f);
	else
		forward_update(f);
}

static void host_event(struct guest_source *s, uint32_t events)
{
	forward_pump(GUEST_CONTAINER(s, struct guest_forward, source[0]), 0, events);
}

static void service_event(struct guest_source *s, uint32_t events)
{
	forward_pump(GUEST_CONTAINER(s, struct guest_forward, source[1]), 1, events);
}

/* From frames to bytes. What the buffers of the framed connection still hold goes first. */
static void forward_open(struct guest_forward *f)
{
	struct guest_frames *fr = f->frames;
	void (*opened)(void *, int) = f->opened;
	void *user = f->user;

	guest_frames_send(fr, &(struct agent_wire_msg){ .type = AGENT_WIRE_FORWARD_OK });
	if (half_keep(&f->half[0], fr->in + fr->in_used, fr->in_len - fr->in_used) < 0 ||
		half_keep(&f->half[1], fr->out + fr->out_pos, fr->out_len - fr->out_pos) < 0) {
		guest_forward_destroy(f);
		opened(user, -ENOMEM);
		return;
	}
	f->frames = NULL;
	f->fd[0] = guest_frames_steal(fr);
	guest_source_stop(&f->source[1]);
	guest_source_init(&f->source[0], f->set->loop, f->fd[0], host_event);
	guest_source_init(&f->source[1], f->set->loop, f->fd[1], service_event);
	guest_timer_stop(&f->timer);
	opened(user, 0);
	forward_pump(f, 0, EPOLLIN | EPOLLOUT);
}

/* ---- connecting ---- */

static void connect_event(struct guest_source *s, uint32_t events);

static int forward_watch(struct guest_forward *f, int fd)
{
	if (fd < 0)
		return fd;
	f->fd[1] = fd;
	guest_source_init(&f->source[1], f->set->loop, fd, connect_event);
	guest_source_set(&f->source[1], EPOLLOUT);
	return 0;
}

static void connect_event(struct guest_source *s, uint32_t events)
{
	struct guest_forward *f = GUEST_CONTAINER(s, struct guest_forward, source[1]);
	int error = 0, second;
	socklen_t len = sizeof error;

	if (getsockopt(f->fd[1], SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		error = errno;
	if (error == 0) {
		forward_open(f);
		return;
	}
	guest_source_stop(&f->source[1]);
	f->fd[1] = fd_close(f->fd[1]);
	if (!f->try_ipv6) {
		forward_fail(f, error);
		return;
	}
	f->try_ipv6 = false;
	second = forward_watch(f, dial_tcp(f->port, true));
	if (second < 0)
		forward_fail(f, error);
}

static void connect_timeout(struct guest_timer *t)
{
	forward_fail(GUEST_CONTAINER(t, struct guest_forward, timer), ETIMEDOUT);
}

int guest_forward_create(const struct agent_wire_msg *m, struct guest_frames *frames,
	struct guest_forward_set *set, void (*opened)(void *user, int error), void *user,
	struct guest_forward **ret)
{
	struct guest_forward *f;
	int r;

	if (set->n >= set->max) {
		send_too_many(frames, set->max);
		return -EAGAIN;
	}
	f = calloc(1, sizeof *f);
	if (!f) {
		send_failed(frames, ENOMEM);
		return -ENOMEM;
	}
	set->n++;
	*f = (struct guest_forward){ .set = set,
		.frames = frames,
		.fd = { -EBADF, -EBADF },
		.opened = opened,
		.user = user };
	r = forward_watch(f, forward_dial(f, m));
	if (r < 0) {
		send_failed(frames, -r);
		guest_forward_destroy(f);
		return r;
	}
	guest_timer_arm(&f->timer, set->loop, CONNECT_MS, connect_timeout);
	*ret = f;
	return 0;
}

void guest_forward_destroy(struct guest_forward *f)
{
	if (!f)
		return;
	f->set->n--;
	guest_timer_stop(&f->timer);
	for (size_t i = 0; i < 2; i++) {
		guest_source_stop(&f->source[i]);
		f->fd[i] = fd_close(f->fd[i]);
		free(f->half[i].left);
	}
	free(f);
}
