#include "relay.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "loop.h"

/* One direction: what was read from its side and not taken by the other. */
struct relay_flow {
	uint8_t *left; /* owned; NULL: nothing */
	size_t at, len;
	bool eof;  /* its side has ended */
	bool shut; /* and the other was told */
};

struct relay_side {
	struct loop_source source;
	struct relay_pair *pair; /* borrowed: the one it is in */
	int fd;                  /* owned */
};

struct relay_pair {
	struct relay *relay; /* borrowed */
	struct list link;    /* in relay.pairs */
	struct loop_job again;
	struct relay_side sides[2];
	struct relay_flow flows[2]; /* [i]: from sides[i] to the other */
};

void relay_init(struct relay *r, struct loop *loop, void (*ended)(void *user), void *user)
{
	r->loop = loop;
	r->ended = ended;
	r->user = user;
	r->n_pairs = 0;
	list_init(&r->pairs);
}

static void pair_free(struct relay_pair *p)
{
	for (int i = 0; i < 2; i++) {
		loop_source_remove(p->relay->loop, &p->sides[i].source);
		fd_close(p->sides[i].fd);
		free(p->flows[i].left);
	}
	loop_job_clear(&p->again);
	list_remove(&p->link);
	free(p);
}

enum flow_result {
	FLOW_WAITS, /* for an event */
	FLOW_GOES_ON,
	FLOW_BROKEN,
};

/* Sends N bytes, as many as are taken; their count, or -1: broken. */
static ssize_t flow_send(int to, const uint8_t *bytes, size_t n)
{
	size_t sent = 0;

	while (sent < n) {
		ssize_t r = send(to, bytes + sent, n - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return errno == EAGAIN ? (ssize_t)sent : -1;
		sent += (size_t)r;
	}
	return (ssize_t)sent;
}

static enum flow_result flow_send_left(struct relay_flow *f, int to)
{
	ssize_t n = flow_send(to, f->left + f->at, f->len);

	if (n < 0)
		return FLOW_BROKEN;
	f->at += (size_t)n;
	f->len -= (size_t)n;
	if (f->len > 0)
		return FLOW_WAITS;
	free(TAKE_PTR(f->left));
	return FLOW_GOES_ON;
}

static enum flow_result flow_keep(struct relay_flow *f, const uint8_t *bytes, size_t n)
{
	f->left = malloc(n);
	if (!f->left)
		return FLOW_BROKEN;
	memcpy(f->left, bytes, n);
	f->at = 0;
	f->len = n;
	return FLOW_WAITS;
}

static enum flow_result flow_read(struct relay *r, struct relay_flow *f, int from, int to)
{
	size_t size = r->n_pairs > RELAY_MANY ? RELAY_BUFFER_MANY : RELAY_BUFFER;
	ssize_t n = recv(from, r->scratch, size, MSG_DONTWAIT), sent;

	if (n < 0)
		return errno == EAGAIN ? FLOW_WAITS : errno == EINTR ? FLOW_GOES_ON : FLOW_BROKEN;
	if (n == 0) {
		f->eof = true;
		return FLOW_GOES_ON;
	}
	sent = flow_send(to, r->scratch, (size_t)n);
	if (sent < 0)
		return FLOW_BROKEN;
	return sent < n ? flow_keep(f, r->scratch + sent, (size_t)(n - sent)) : FLOW_GOES_ON;
}

static enum flow_result flow_step(struct relay *r, struct relay_flow *f, int from, int to)
{
	if (f->left)
		return flow_send_left(f, to);
	if (!f->eof)
		return flow_read(r, f, from, to);
	if (!f->shut)
		shutdown(to, SHUT_WR);
	f->shut = true;
	return FLOW_WAITS;
}

static enum flow_result pair_pump_one(struct relay_pair *p, int i)
{
	enum flow_result result = FLOW_GOES_ON;

	for (int n = 0; n < RELAY_ROUNDS && result == FLOW_GOES_ON; n++)
		result = flow_step(p->relay, &p->flows[i], p->sides[i].fd, p->sides[!i].fd);
	return result;
}

static void pair_pump(struct relay_pair *p)
{
	struct relay *r = p->relay;
	enum flow_result a = pair_pump_one(p, 0), b = pair_pump_one(p, 1);

	if (a == FLOW_BROKEN || b == FLOW_BROKEN || (p->flows[0].shut && p->flows[1].shut)) {
		pair_free(p);
		r->n_pairs--;
		r->ended(r->user);
	} else if (a == FLOW_GOES_ON || b == FLOW_GOES_ON) {
		loop_job_add(r->loop, &p->again);
	}
}

static void pair_event(struct loop_source *s, uint32_t events)
{
	pair_pump(CONTAINER_OF(s, struct relay_side, source)->pair);
}

static void pair_again(struct loop_job *j)
{
	pair_pump(CONTAINER_OF(j, struct relay_pair, again));
}

int relay_add_consume(struct relay *r, int a, int b)
{
	struct relay_pair *p = r->n_pairs < RELAY_PAIRS_MAX ? calloc(1, sizeof *p) : NULL;
	int error = 0;

	if (!p) {
		close(a);
		close(b);
		return -EBUSY;
	}
	p->relay = r;
	list_init(&p->link);
	loop_job_init(&p->again, pair_again);
	for (int i = 0; i < 2; i++) {
		p->sides[i].pair = p;
		p->sides[i].fd = i == 0 ? a : b;
		loop_source_init(&p->sides[i].source, pair_event);
	}
	for (int i = 0; i < 2 && error == 0; i++)
		error = loop_source_add(r->loop, &p->sides[i].source, p->sides[i].fd,
			EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET);
	if (error < 0) {
		pair_free(p);
		return error;
	}
	list_append(&r->pairs, &p->link);
	r->n_pairs++;
	return 0;
}

void relay_finish(struct relay *r)
{
	while (!list_empty(&r->pairs))
		pair_free(CONTAINER_OF(r->pairs.next, struct relay_pair, link));
}
