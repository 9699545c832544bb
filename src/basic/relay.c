#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "loop.h"

/* One direction: what was read from its side and not taken by the other, LEN bytes in one of two places. */
struct relay_flow {
	struct relay_pipe pipe; /* owned */
	uint8_t *left;          /* owned; NULL: in the pipe, if anywhere */
	size_t at, len;
	bool eof;  /* its side has ended */
	bool shut; /* and the other was told */
};

struct relay_side {
	struct loop_source source;
	struct relay_pair *pair; /* borrowed: the one it is in */
	int fd;                  /* owned */
	bool readable, writable; /* as far as is known: true until it says EAGAIN */
};

struct relay_pair {
	struct relay *relay; /* borrowed */
	struct list link;    /* in relay.pairs */
	struct loop_job again;
	struct relay_side sides[2];
	struct relay_flow flows[2]; /* [i]: from sides[i] to the other */
};

int relay_init(struct relay *r, struct loop *loop, void (*ended)(void *user), void *user)
{
	r->loop = loop;
	r->ended = ended;
	r->user = user;
	r->n_pairs = 0;
	list_init(&r->pairs);
	r->pipes = (struct relay_pipes){ .max = RELAY_PIPES_MAX };
	r->pipe = RELAY_PIPE_NONE;
	return relay_pipe_take(&r->pipes, &r->pipe);
}

static void pair_free(struct relay_pair *p)
{
	for (int i = 0; i < 2; i++) {
		loop_source_remove(p->relay->loop, &p->sides[i].source);
		fd_close(p->sides[i].fd);
		relay_pipe_give(&p->relay->pipes, &p->flows[i].pipe, false);
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

/* As send() and splice(), but for EINTR. */
static ssize_t flow_move(struct relay_flow *f, int from, int to, size_t n)
{
	ssize_t r;

	do
		r = f->left ? send(to, f->left + f->at, n, MSG_NOSIGNAL | MSG_DONTWAIT)
			    : splice(from, NULL, to, NULL, n, SPLICE_F_NONBLOCK);
	while (r < 0 && errno == EINTR);
	return r;
}

/* What F has kept, or has in PIPE_OUT, goes on, as much as is taken. */
static enum flow_result flow_send(struct relay_flow *f, int pipe_out, struct relay_side *to)
{
	while (f->len > 0) {
		ssize_t n = flow_move(f, pipe_out, to->fd, f->len);

		if (n <= 0 && (n == 0 || errno != EAGAIN))
			return FLOW_BROKEN;
		if (n < 0) {
			to->writable = false;
			return FLOW_WAITS;
		}
		f->at += (size_t)n;
		f->len -= (size_t)n;
	}
	return FLOW_GOES_ON;
}

static enum flow_result flow_send_left(struct relay *r, struct relay_flow *f, struct relay_side *to)
{
	enum flow_result result = flow_send(f, f->pipe.out, to);

	if (result != FLOW_GOES_ON)
		return result;
	relay_pipe_give(&r->pipes, &f->pipe, true);
	free(TAKE_PTR(f->left));
	return FLOW_GOES_ON;
}

/* The rest of what is in the relay's pipe: pipe and all if there is another, else in a copy. */
static enum flow_result flow_keep(struct relay *r, struct relay_flow *f)
{
	struct relay_pipe other;

	if (relay_pipe_take(&r->pipes, &other) == 0) {
		f->pipe = r->pipe;
		r->pipe = other;
		return FLOW_WAITS;
	}
	f->left = malloc(f->len);
	f->at = 0;
	return f->left && fd_read_full(r->pipe.out, f->left, f->len) == (ssize_t)f->len
		       ? FLOW_WAITS
		       : FLOW_BROKEN;
}

/* The relay's pipe may have something in it that nobody is to get. */
static void relay_renew_pipe(struct relay *r)
{
	relay_pipe_give(&r->pipes, &r->pipe, false);
	(void)relay_pipe_take(&r->pipes, &r->pipe); /* another try with the next read */
}

static enum flow_result flow_read(
	struct relay *r, struct relay_flow *f, struct relay_side *from, struct relay_side *to)
{
	size_t size = r->n_pairs > RELAY_MANY ? RELAY_READ_MANY : RELAY_READ;
	enum flow_result result;
	ssize_t n;

	if (r->pipe.in < 0)
		relay_renew_pipe(r);
	n = flow_move(f, from->fd, r->pipe.in, size);
	if (n < 0 && errno == EAGAIN)
		from->readable = false;
	if (n < 0)
		return errno == EAGAIN ? FLOW_WAITS : FLOW_BROKEN;
	f->eof = n == 0;
	f->len = (size_t)n;
	result = flow_send(f, r->pipe.out, to);
	if (result == FLOW_WAITS)
		result = flow_keep(r, f);
	if (result == FLOW_BROKEN)
		relay_renew_pipe(r);
	return result;
}

static enum flow_result flow_step(
	struct relay *r, struct relay_flow *f, struct relay_side *from, struct relay_side *to)
{
	if (f->len > 0)
		return to->writable ? flow_send_left(r, f, to) : FLOW_WAITS;
	if (!f->eof)
		return from->readable ? flow_read(r, f, from, to) : FLOW_WAITS;
	if (!f->shut)
		shutdown(to->fd, SHUT_WR);
	f->shut = true;
	return FLOW_WAITS;
}

static enum flow_result pair_pump_one(struct relay_pair *p, int i)
{
	enum flow_result result = FLOW_GOES_ON;

	for (int n = 0; n < RELAY_ROUNDS && result == FLOW_GOES_ON; n++)
		result = flow_step(p->relay, &p->flows[i], &p->sides[i], &p->sides[!i]);
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
	struct relay_side *side = CONTAINER_OF(s, struct relay_side, source);

	side->readable |= !!(events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR));
	side->writable |= !!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR));
	pair_pump(side->pair);
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
		p->sides[i].readable = p->sides[i].writable = true;
		p->flows[i].pipe = RELAY_PIPE_NONE;
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
	relay_pipe_give(&r->pipes, &r->pipe, false);
	relay_pipes_finish(&r->pipes);
}
