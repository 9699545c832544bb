#include "relay.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"

#define RELAY_BUFFER (64 * 1024)

/* One direction: FROM's bytes on their way to TO. */
struct relay_flow {
	uint8_t *buf; /* owned, RELAY_BUFFER */
	size_t at, len;
	bool eof;  /* FROM has ended */
	bool shut; /* and TO was told */
};

struct relay_pair {
	struct relay *relay;        /* borrowed */
	struct relay_pair *next;    /* in relay->pairs */
	int fds[2];                 /* owned */
	struct relay_flow flows[2]; /* [i]: from fds[i] to fds[!i] */
	uint32_t events[2];         /* as registered */
	bool dead;
};

/* What an epoll event points at: side I of a pair, tagged in the low bit. */
struct relay {
	int epoll;                /* owned */
	int listen_fd;            /* borrowed, as registered; -1: none */
	struct relay_pair *pairs; /* owned */
	size_t n_pairs;
};

int relay_create(struct relay **ret)
{
	struct relay *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	r->listen_fd = -1;
	r->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (r->epoll < 0) {
		free(r);
		return -errno;
	}
	*ret = r;
	return 0;
}

static void pair_free(struct relay_pair *p)
{
	for (int i = 0; i < 2; i++) {
		fd_close(p->fds[i]);
		free(p->flows[i].buf);
	}
	free(p);
}

static uint32_t pair_wants(const struct relay_pair *p, int side)
{
	const struct relay_flow *out = &p->flows[side], *in = &p->flows[!side];

	return (!out->eof && out->len == 0 ? EPOLLIN : 0) | (in->len > 0 ? EPOLLOUT : 0);
}

static int pair_watch(struct relay_pair *p, int side, int op)
{
	struct epoll_event e = { .events = pair_wants(p, side),
		.data.u64 = (uintptr_t)p | (unsigned)side };

	if (op == EPOLL_CTL_MOD && e.events == p->events[side])
		return 0;
	p->events[side] = e.events;
	return epoll_ctl(p->relay->epoll, op, p->fds[side], &e) < 0 ? -errno : 0;
}

int relay_add_consume(struct relay *r, int a, int b)
{
	struct relay_pair *p = r->n_pairs < RELAY_PAIRS_MAX ? calloc(1, sizeof *p) : NULL;
	int error = p ? 0 : -EBUSY;

	if (!p) {
		close(a);
		close(b);
		return error;
	}
	p->relay = r;
	p->fds[0] = a;
	p->fds[1] = b;
	for (int i = 0; i < 2; i++) {
		p->flows[i].buf = malloc(RELAY_BUFFER);
		if (!p->flows[i].buf)
			error = -ENOMEM;
	}
	for (int i = 0; i < 2 && error == 0; i++)
		error = pair_watch(p, i, EPOLL_CTL_ADD);
	if (error < 0) {
		pair_free(p);
		return error;
	}
	p->next = r->pairs;
	r->pairs = p;
	r->n_pairs++;
	return 0;
}

/* False: the pair is broken. */
static bool flow_fill(struct relay_flow *f, int from)
{
	ssize_t n;

	if (f->eof || f->len > 0)
		return true;
	n = read(from, f->buf, RELAY_BUFFER);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	f->at = 0;
	f->len = (size_t)n;
	f->eof = n == 0;
	return true;
}

static bool flow_drain(struct relay_flow *f, int to)
{
	while (f->len > 0) {
		ssize_t n = send(to, f->buf + f->at, f->len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		f->at += (size_t)n;
		f->len -= (size_t)n;
	}
	if (f->eof && !f->shut) {
		shutdown(to, SHUT_WR);
		f->shut = true;
	}
	return true;
}

static void pair_serve(struct relay_pair *p, int side)
{
	bool good = flow_fill(&p->flows[side], p->fds[side]) &&
		    flow_drain(&p->flows[side], p->fds[!side]) &&
		    flow_drain(&p->flows[!side], p->fds[side]);

	if (!good || (p->flows[0].shut && p->flows[1].shut)) {
		p->dead = true;
		return;
	}
	for (int i = 0; i < 2; i++) {
		if (pair_watch(p, i, EPOLL_CTL_MOD) < 0)
			p->dead = true;
	}
}

static void relay_bury(struct relay *r)
{
	for (struct relay_pair **p = &r->pairs; *p;) {
		struct relay_pair *pair = *p;

		if (!pair->dead) {
			p = &pair->next;
			continue;
		}
		*p = pair->next;
		r->n_pairs--;
		pair_free(pair);
	}
}

static void relay_listen(struct relay *r, int listen_fd)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = 0 };

	if (r->listen_fd == listen_fd)
		return;
	epoll_ctl(r->epoll, EPOLL_CTL_ADD, listen_fd, &e);
	r->listen_fd = listen_fd;
}

int relay_turn(struct relay *r, int listen_fd, int ms)
{
	struct epoll_event events[64];
	int n, listening = 0;

	relay_listen(r, listen_fd);
	n = epoll_wait(r->epoll, events, ARRAY_SIZE(events), ms);
	for (int i = 0; i < n; i++) {
		struct relay_pair *p = (void *)(uintptr_t)(events[i].data.u64 & ~UINT64_C(1));

		if (!p)
			listening = 1;
		else if (!p->dead)
			pair_serve(p, (int)(events[i].data.u64 & 1));
	}
	relay_bury(r);
	return listening;
}

void relay_destroy(struct relay *r)
{
	if (!r)
		return;
	while (r->pairs) {
		struct relay_pair *p = r->pairs;

		r->pairs = p->next;
		pair_free(p);
	}
	fd_close(r->epoll);
	free(r);
}
