#include "loop.h"

#include <errno.h>
#include <limits.h>
#include <time.h>

#include "fd.h"

uint64_t loop_now_usec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

int loop_init(struct loop *l)
{
	*l = (struct loop){ .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	list_init(&l->timers);
	list_init(&l->jobs);
	return l->epoll_fd < 0 ? -errno : 0;
}

void loop_finish(struct loop *l)
{
	l->epoll_fd = fd_close(l->epoll_fd);
}

void loop_stop(struct loop *l, int exit_code)
{
	if (l->stopped)
		return;
	l->stopped = true;
	l->exit_code = exit_code;
}

void loop_source_init(struct loop_source *s, void (*fn)(struct loop_source *s, uint32_t events))
{
	*s = (struct loop_source){ .fd = -EBADF, .fn = fn };
}

int loop_source_add(struct loop *l, struct loop_source *s, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };

	if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0)
		return -errno;
	s->fd = fd;
	return 0;
}

int loop_source_rearm(struct loop *l, struct loop_source *s, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.ptr = s };

	return epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, s->fd, &e) < 0 ? -errno : 0;
}

void loop_source_remove(struct loop *l, struct loop_source *s)
{
	if (s->fd < 0)
		return;
	epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, s->fd, NULL);
	s->fd = -EBADF;
	for (int i = 0; i < l->n_batch; i++) {
		if (l->batch[i].data.ptr == s)
			l->batch[i].data.ptr = NULL;
	}
}

void loop_timer_init(struct loop_timer *t, void (*fn)(struct loop_timer *t))
{
	*t = (struct loop_timer){ .fn = fn };
	list_init(&t->link);
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t after_usec)
{
	struct list *place = &l->timers;

	list_remove(&t->link);
	t->at_usec = loop_now_usec() + after_usec;
	/* from the end: where all timers are of one length, the first look is the last */
	while (place->prev != &l->timers &&
		CONTAINER_OF(place->prev, struct loop_timer, link)->at_usec > t->at_usec)
		place = place->prev;
	list_insert_before(place, &t->link);
}

void loop_timer_clear(struct loop_timer *t)
{
	list_remove(&t->link);
}

uint64_t loop_timer_left(const struct loop_timer *t)
{
	uint64_t now;

	if (list_empty(&t->link))
		return UINT64_MAX;
	now = loop_now_usec();
	return t->at_usec > now ? t->at_usec - now : 0;
}

void loop_job_init(struct loop_job *j, void (*fn)(struct loop_job *j))
{
	*j = (struct loop_job){ .fn = fn };
	list_init(&j->link);
}

void loop_job_add(struct loop *l, struct loop_job *j)
{
	if (list_empty(&j->link))
		list_append(&l->jobs, &j->link);
}

void loop_job_clear(struct loop_job *j)
{
	list_remove(&j->link);
}

static void loop_run_timers(struct loop *l)
{
	uint64_t now;

	if (list_empty(&l->timers))
		return;
	now = loop_now_usec();
	while (!list_empty(&l->timers)) {
		struct loop_timer *t = CONTAINER_OF(l->timers.next, struct loop_timer, link);

		if (t->at_usec > now)
			return;
		list_remove(&t->link);
		t->fn(t);
	}
}

/* Jobs that are added meanwhile wait for the next turn: the list is moved away first. */
static void loop_run_jobs(struct loop *l)
{
	struct list now;

	if (list_empty(&l->jobs))
		return;
	now = l->jobs;
	now.next->prev = now.prev->next = &now;
	list_init(&l->jobs);
	while (!list_empty(&now)) {
		struct loop_job *j = CONTAINER_OF(now.next, struct loop_job, link);

		list_remove(&j->link);
		j->fn(j);
	}
}

static int loop_timeout_msec(const struct loop *l)
{
	uint64_t now, at, msec;

	if (!list_empty(&l->jobs))
		return 0;
	if (list_empty(&l->timers))
		return -1;
	now = loop_now_usec();
	at = CONTAINER_OF(l->timers.next, struct loop_timer, link)->at_usec;
	if (at <= now)
		return 0;
	msec = (at - now + 999) / 1000;
	return msec > INT_MAX ? INT_MAX : (int)msec;
}

static int loop_turn(struct loop *l)
{
	int n = epoll_wait(l->epoll_fd, l->batch, LOOP_BATCH, loop_timeout_msec(l));

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	l->n_batch = n;
	for (int i = 0; i < n; i++) {
		struct loop_source *s = l->batch[i].data.ptr;

		if (s)
			s->fn(s, l->batch[i].events);
	}
	l->n_batch = 0;
	loop_run_timers(l);
	loop_run_jobs(l);
	return 0;
}

int loop_run(struct loop *l)
{
	int r;

	while (!l->stopped) {
		r = loop_turn(l);
		if (r < 0)
			return r;
	}
	return l->exit_code;
}
