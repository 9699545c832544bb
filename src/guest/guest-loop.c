#include "guest-loop.h"

#include "fd.h"

#include <errno.h>
#include <time.h>

uint64_t guest_loop_now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int guest_loop_init(struct guest_loop *l)
{
	*l = (struct guest_loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	LIST_INIT(&l->timers);
	return l->epoll_fd < 0 ? -errno : 0;
}

void guest_loop_finish(struct guest_loop *l)
{
	l->epoll_fd = fd_close(l->epoll_fd);
}

void guest_source_init(struct guest_source *s, struct guest_loop *l, int fd,
	void (*fn)(struct guest_source *s, uint32_t events))
{
	*s = (struct guest_source){ .fn = fn, .loop = l, .fd = fd };
}

void guest_source_set(struct guest_source *s, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = s };
	int op = !events ? EPOLL_CTL_DEL : s->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;

	if (!s->loop || events == s->events)
		return;
	if (epoll_ctl(s->loop->epoll_fd, op, s->fd, &ev) == 0)
		s->events = events;
}

void guest_source_stop(struct guest_source *s)
{
	guest_source_set(s, 0);
	*s = (struct guest_source){ .fd = -EBADF };
}

void guest_timer_arm(struct guest_timer *t, struct guest_loop *l, uint64_t delay_ms,
	void (*fn)(struct guest_timer *t))
{
	guest_timer_stop(t);
	t->fn = fn;
	t->at_usec = guest_loop_now_usec() + delay_ms * 1000;
	LIST_INSERT_HEAD(&l->timers, t, link);
}

void guest_timer_stop(struct guest_timer *t)
{
	if (t->fn)
		LIST_REMOVE(t, link);
	t->fn = NULL;
}

static struct guest_timer *guest_loop_next_timer(struct guest_loop *l)
{
	struct guest_timer *t, *next = NULL;

	LIST_FOREACH(t, &l->timers, link)
	if (!next || t->at_usec < next->at_usec)
		next = t;
	return next;
}

/* Runs one due timer if there is one; else says how long to wait. */
static bool guest_loop_run_timer(struct guest_loop *l, int *ret_wait_ms)
{
	struct guest_timer *t = guest_loop_next_timer(l);
	uint64_t now = t ? guest_loop_now_usec() : 0;
	void (*fn)(struct guest_timer *);

	if (!t || t->at_usec > now) {
		*ret_wait_ms = t ? (int)((t->at_usec - now + 999) / 1000) : -1;
		return false;
	}
	fn = t->fn;
	guest_timer_stop(t);
	fn(t);
	return true;
}

int guest_loop_run(struct guest_loop *l)
{
	while (!l->quit) {
		struct epoll_event ev;
		struct guest_source *s;
		int wait_ms, n;

		if (guest_loop_run_timer(l, &wait_ms))
			continue;
		n = epoll_wait(l->epoll_fd, &ev, 1, wait_ms);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n <= 0)
			continue;
		s = ev.data.ptr;
		s->fn(s, ev.events);
	}
	return 0;
}
