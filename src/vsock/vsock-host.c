#include "vsock-host.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cleanup.h"
#include "fd.h"

#define VSOCK_ACCEPTS_PER_TURN 32
#define VSOCK_ACCEPT_PAUSE     100000 /* µs */
#define VSOCK_HOST_EVENTS      (EPOLLIN | EPOLLET)
#define VSOCK_PENDING_EVENTS   (EPOLLIN | EPOLLRDHUP | EPOLLET)

int vsock_host_parse(const char *line, size_t len, uint32_t *ret_port)
{
	static const char word[] = "CONNECT ";
	uint64_t port = 0;
	size_t i = sizeof word - 1;

	if (len < i + 2 || len > VSOCK_LINE_MAX || memcmp(line, word, i) || line[len - 1] != '\n')
		return -EINVAL;
	if (len - 1 - i > 10)
		return -EINVAL;
	for (; i < len - 1; i++) {
		if (line[i] < '0' || line[i] > '9')
			return -EINVAL;
		port = port * 10 + (uint64_t)(line[i] - '0');
	}
	if (port > UINT32_MAX)
		return -EINVAL;
	*ret_port = (uint32_t)port;
	return 0;
}

/* Ends the wait; returns the descriptor, which is the caller's now. */
static int vsock_pending_take(struct vsock_pending *p)
{
	loop_source_remove(p->host->loop, &p->source);
	loop_timer_clear(&p->timer);
	list_remove(&p->link);
	list_append(&p->host->idle, &p->link);
	if (!list_empty(&p->host->accept_timer.link))
		loop_job_add(p->host->loop, &p->host->accept_job);
	return TAKE_FD(p->fd);
}

static void vsock_pending_drop(struct vsock_pending *p)
{
	fd_close(vsock_pending_take(p));
}

static void vsock_pending_timeout(struct loop_timer *t)
{
	vsock_pending_drop(CONTAINER_OF(t, struct vsock_pending, timer));
}

/* The length of the line that waits in FD, newline included; 0: not whole yet; -errno. */
static int vsock_pending_peek(int fd, char line[static VSOCK_LINE_MAX])
{
	ssize_t n;
	char *end;

	do
		n = recv(fd, line, VSOCK_LINE_MAX, MSG_PEEK | MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	end = memchr(line, '\n', (size_t)n);
	if (end)
		return (int)(end - line) + 1;
	return n == VSOCK_LINE_MAX ? -EINVAL : 0;
}

static void vsock_pending_event(struct loop_source *s, uint32_t events)
{
	struct vsock_pending *p = CONTAINER_OF(s, struct vsock_pending, source);
	struct vsock_host *h = p->host;
	char line[VSOCK_LINE_MAX];
	uint32_t port;
	int len;

	len = vsock_pending_peek(p->fd, line);
	if (len == 0 && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
		return;
	if (len <= 0 || vsock_host_parse(line, (size_t)len, &port) < 0 ||
		recv(p->fd, line, (size_t)len, MSG_DONTWAIT) != len) {
		vsock_pending_drop(p);
		return;
	}
	h->called(h, port, vsock_pending_take(p));
}

/* Whether there is an idle place: made when none was given back, as most hosts never have many callers at once. */
static bool vsock_host_has_place(struct vsock_host *h)
{
	struct vsock_pending *p;

	if (!list_empty(&h->idle))
		return true;
	if (h->fresh == VSOCK_PENDING_MAX)
		return false;
	p = &h->pending[h->fresh++];
	p->host = h;
	p->fd = -EBADF;
	loop_source_init(&p->source, vsock_pending_event);
	loop_timer_init(&p->timer, vsock_pending_timeout);
	list_append(&h->idle, &p->link);
	return true;
}

/* How long the oldest caller is still safe, when every place is taken; else 0. */
static uint64_t vsock_host_full_usec(struct vsock_host *h)
{
	uint64_t now = loop_now_usec(), until;

	if (vsock_host_has_place(h))
		return 0;
	until = CONTAINER_OF(h->waiting.next, struct vsock_pending, link)->timer.at_usec -
		VSOCK_HANDSHAKE_USEC + VSOCK_PENDING_SAFE_USEC;
	return until > now ? until - now : 0;
}

static void vsock_host_wait_for_line(struct vsock_host *h, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	struct vsock_pending *p;

	if (!vsock_host_has_place(h))
		vsock_pending_drop(CONTAINER_OF(h->waiting.next, struct vsock_pending, link));
	p = CONTAINER_OF(h->idle.next, struct vsock_pending, link);
	if (loop_source_add(h->loop, &p->source, fd, VSOCK_PENDING_EVENTS) < 0)
		return;
	p->fd = TAKE_FD(fd);
	list_remove(&p->link);
	list_append(&h->waiting, &p->link);
	loop_timer_set(h->loop, &p->timer, VSOCK_HANDSHAKE_USEC);
	vsock_pending_event(&p->source, 0); /* mostly the line is there already */
}

static void vsock_host_accept(struct vsock_host *h)
{
	loop_timer_clear(&h->accept_timer);
	for (int i = 0; i < VSOCK_ACCEPTS_PER_TURN; i++) {
		uint64_t full_usec = vsock_host_full_usec(h);
		int fd;

		if (full_usec > 0) {
			loop_timer_set(h->loop, &h->accept_timer, full_usec);
			return;
		}
		fd = accept4(h->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd >= 0) {
			vsock_host_wait_for_line(h, fd);
		} else if (errno == EAGAIN) {
			(void)loop_source_rearm(h->loop, &h->source, VSOCK_HOST_EVENTS);
			return;
		} else if (errno != EINTR && errno != ECONNABORTED) {
			loop_timer_set(h->loop, &h->accept_timer, VSOCK_ACCEPT_PAUSE);
			return;
		}
	}
	loop_job_add(h->loop, &h->accept_job);
}

static void vsock_host_event(struct loop_source *s, uint32_t events)
{
	vsock_host_accept(CONTAINER_OF(s, struct vsock_host, source));
}

static void vsock_host_more(struct loop_job *j)
{
	vsock_host_accept(CONTAINER_OF(j, struct vsock_host, accept_job));
}

static void vsock_host_again(struct loop_timer *t)
{
	vsock_host_accept(CONTAINER_OF(t, struct vsock_host, accept_timer));
}

int vsock_host_open(struct vsock_host *h, struct loop *loop, const char *path,
	vsock_host_called *called, int listen_fd_consume)
{
	CLEANUP_CLOSE int fd = listen_fd_consume;
	int r;

	if (!*path || strlen(path) >= sizeof h->path || strchr(path, '/'))
		return -EINVAL;
	h->loop = loop;
	h->called = called;
	h->fd = -EBADF;
	h->fresh = 0;
	strcpy(h->path, path);
	list_init(&h->waiting);
	list_init(&h->idle);
	loop_source_init(&h->source, vsock_host_event);
	loop_job_init(&h->accept_job, vsock_host_more);
	loop_timer_init(&h->accept_timer, vsock_host_again);
	r = fd_set_nonblock(fd, 1);
	if (r < 0)
		return r;
	r = loop_source_add(loop, &h->source, fd, VSOCK_HOST_EVENTS);
	if (r < 0)
		return r;
	h->fd = TAKE_FD(fd);
	return 0;
}

int vsock_host_restore(struct vsock_host *h, uint64_t timer_usec, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	struct vsock_pending *p;
	int r;

	if (!vsock_host_has_place(h))
		return -ENOSPC;
	p = CONTAINER_OF(h->idle.next, struct vsock_pending, link);
	r = loop_source_add(h->loop, &p->source, fd, VSOCK_PENDING_EVENTS);
	if (r < 0)
		return r;
	p->fd = TAKE_FD(fd);
	list_remove(&p->link);
	list_append(&h->waiting, &p->link);
	loop_timer_set(h->loop, &p->timer, timer_usec);
	return 0;
}

void vsock_host_drop(struct vsock_host *h)
{
	while (!list_empty(&h->waiting))
		vsock_pending_drop(CONTAINER_OF(h->waiting.next, struct vsock_pending, link));
}

void vsock_host_close(struct vsock_host *h)
{
	vsock_host_drop(h);
	loop_source_remove(h->loop, &h->source);
	loop_job_clear(&h->accept_job);
	loop_timer_clear(&h->accept_timer);
	h->fd = fd_close(h->fd);
}

int vsock_host_dial(const struct vsock_host *h, uint32_t port)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	static_assert(VSOCK_PATH_MAX + sizeof "_4294967295" <= sizeof sa.sun_path, "a port fits");
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s_%u", h->path, port);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	return TAKE_FD(fd);
}
