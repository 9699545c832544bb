#include "vsock-conn.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "fd.h"

#define VSOCK_CREDIT_STEP (VSOCK_BUF_BYTES / 4)
#define VSOCK_CONN_EVENTS (EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET)

static void vsock_conn_event(struct loop_source *s, uint32_t events);
static void vsock_conn_timeout(struct loop_timer *t);

void vsock_conn_init(struct vsock_conn *c, struct loop *loop, const struct vsock_conn_hooks *hooks,
	void *owner, void *buf)
{
	*c = (struct vsock_conn){ .loop = loop, .hooks = hooks, .owner = owner, .fd = -EBADF };
	loop_source_init(&c->source, vsock_conn_event);
	loop_timer_init(&c->timer, vsock_conn_timeout);
	list_init(&c->ready_link);
	ring_init(&c->ring, buf, VSOCK_BUF_BYTES);
}

static void vsock_conn_close(struct vsock_conn *c)
{
	loop_source_remove(c->loop, &c->source);
	c->fd = fd_close(c->fd);
	ring_consume(&c->ring, ring_used(&c->ring));
}

static void vsock_conn_end(struct vsock_conn *c)
{
	vsock_conn_close(c);
	loop_timer_clear(&c->timer);
	c->state = VSOCK_FREE;
	c->owes = 0;
	c->hooks->ended(c);
}

static void vsock_conn_owe(struct vsock_conn *c, unsigned what)
{
	c->owes |= what;
	c->hooks->ready(c);
}

/* Both sides lose it: the host by close(), the guest by RST. */
static void vsock_conn_reset(struct vsock_conn *c)
{
	vsock_conn_close(c);
	loop_timer_clear(&c->timer);
	c->state = VSOCK_DEAD;
	c->owes = 0;
	vsock_conn_owe(c, VSOCK_OWES_RST);
}

void vsock_conn_abort(struct vsock_conn *c)
{
	vsock_conn_reset(c);
}

void vsock_conn_drop(struct vsock_conn *c)
{
	vsock_conn_end(c);
}

/* The socket said EAGAIN. */
static void vsock_conn_wait(struct vsock_conn *c)
{
	if (loop_source_rearm(c->loop, &c->source, VSOCK_CONN_EVENTS) < 0)
		vsock_conn_reset(c);
}

static void vsock_conn_timeout(struct loop_timer *t)
{
	struct vsock_conn *c = CONTAINER_OF(t, struct vsock_conn, timer);

	/* a guest that was never asked, or was told the end already, need not hear of it */
	if ((c->owes & VSOCK_OWES_REQUEST) ||
		(c->state == VSOCK_DRAINING && !(c->owes & VSOCK_OWES_RST)))
		vsock_conn_end(c);
	else
		vsock_conn_reset(c);
}

/* host → guest */

static uint32_t vsock_conn_credit(const struct vsock_conn *c)
{
	uint32_t flying = c->tx_cnt - c->guest_fwd;

	/* a guest may shrink buf_alloc, or lie about what it has read: never below nothing */
	return flying >= c->guest_alloc ? 0 : c->guest_alloc - flying;
}

static bool vsock_conn_may_read(const struct vsock_conn *c)
{
	return c->state == VSOCK_OPEN && c->readable && !(c->guest_shut & VSOCK_SHUTDOWN_RECV) &&
	       !(c->host_shut & VSOCK_SHUTDOWN_SEND);
}

bool vsock_conn_is_ready(const struct vsock_conn *c)
{
	return c->owes || (vsock_conn_may_read(c) && vsock_conn_credit(c) > 0);
}

/* The host will not send (SEND) or take (RECV) any more: the guest has to know. */
static void vsock_conn_host_shuts(struct vsock_conn *c, unsigned what)
{
	if ((c->host_shut | what) == c->host_shut)
		return;
	c->host_shut |= what;
	vsock_conn_owe(c, VSOCK_OWES_SHUTDOWN);
}

/* Shortens the N pieces of IOV to MAX bytes; returns how many remain. */
static size_t vsock_iov_cut(struct iovec *iov, size_t n, uint64_t max)
{
	for (size_t i = 0; i < n; i++) {
		if (iov[i].iov_len >= max) {
			iov[i].iov_len = max;
			return max ? i + 1 : i;
		}
		max -= iov[i].iov_len;
	}
	return n;
}

/* Reads up to the guest's credit; returns the bytes, 0 when there are none. */
static uint32_t vsock_conn_read(
	struct vsock_conn *c, struct iovec *room, size_t n, uint64_t room_bytes)
{
	uint64_t max = vsock_conn_credit(c);
	ssize_t got;

	max = max < VSOCK_PACKET_MAX ? max : VSOCK_PACKET_MAX;
	max = max < room_bytes ? max : room_bytes;
	n = vsock_iov_cut(room, n, max);
	do
		got = readv(c->fd, room, (int)n);
	while (got < 0 && errno == EINTR);
	if (got > 0) {
		c->tx_cnt += (uint32_t)got;
		return (uint32_t)got;
	}
	c->readable = false;
	if (got == 0)
		vsock_conn_host_shuts(c, c->hangup ? VSOCK_SHUTDOWN_BOTH : VSOCK_SHUTDOWN_SEND);
	else if (errno == EAGAIN)
		vsock_conn_wait(c);
	else
		vsock_conn_reset(c);
	return 0;
}

/* The packet for the most urgent thing owed, as an operation; 0 when it is none. */
static uint16_t vsock_conn_pay(struct vsock_conn *c, unsigned among)
{
	static const struct {
		unsigned owes;
		uint16_t op;
	} order[] = {
		{ VSOCK_OWES_RST, VSOCK_OP_RST },
		{ VSOCK_OWES_REQUEST, VSOCK_OP_REQUEST },
		{ VSOCK_OWES_RESPONSE, VSOCK_OP_RESPONSE },
		{ VSOCK_OWES_SHUTDOWN, VSOCK_OP_SHUTDOWN },
		{ VSOCK_OWES_CREDIT_REQUEST, VSOCK_OP_CREDIT_REQUEST },
		{ VSOCK_OWES_CREDIT, VSOCK_OP_CREDIT_UPDATE },
	};

	for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
		if (c->owes & among & order[i].owes) {
			c->owes &= ~order[i].owes;
			return order[i].op;
		}
	}
	return 0;
}

/* What is done when the packet goes out. */
static void vsock_conn_paid(struct vsock_conn *c, struct vsock_pkt *p)
{
	if (p->op == VSOCK_OP_SHUTDOWN) {
		p->flags = c->host_shut;
		if (c->host_shut == VSOCK_SHUTDOWN_BOTH && c->state == VSOCK_OPEN)
			loop_timer_set(c->loop, &c->timer, VSOCK_SHUTDOWN_USEC);
	}
	if (p->op == VSOCK_OP_RST && c->state == VSOCK_DEAD)
		vsock_conn_end(c);
}

bool vsock_conn_output(struct vsock_conn *c, struct vsock_pkt *ret, struct iovec *room, size_t n,
	uint64_t room_bytes)
{
	struct vsock_pkt p = { .src_port = c->key.peer_port,
		.dst_port = c->key.guest_port,
		.type = c->key.type,
		.buf_alloc = VSOCK_BUF_BYTES };

	p.op = vsock_conn_pay(c, VSOCK_OWES_RST | VSOCK_OWES_REQUEST | VSOCK_OWES_RESPONSE);
	if (!p.op && vsock_conn_may_read(c) && vsock_conn_credit(c) > 0) {
		/* a chain with room for a header alone has to go: it carries our credit */
		if (room_bytes == 0)
			p.op = VSOCK_OP_CREDIT_UPDATE;
		else if ((p.len = vsock_conn_read(c, room, n, room_bytes)) > 0)
			p.op = VSOCK_OP_RW;
	}
	if (!p.op)
		p.op = vsock_conn_pay(c, ~0u);
	if (!p.op)
		return false;
	if (p.op == VSOCK_OP_RW && vsock_conn_credit(c) == 0 && !c->credit_asked) {
		c->credit_asked = true;
		c->owes |= VSOCK_OWES_CREDIT_REQUEST;
	}
	p.fwd_cnt = c->fwd_told = c->fwd_cnt;
	c->owes &= ~VSOCK_OWES_CREDIT;
	vsock_conn_paid(c, &p);
	*ret = p;
	return true;
}

/* guest → host */

static void vsock_conn_forwarded(struct vsock_conn *c, uint32_t n)
{
	c->fwd_cnt += n;
	if (c->state == VSOCK_OPEN && c->fwd_cnt - c->fwd_told >= VSOCK_CREDIT_STEP)
		vsock_conn_owe(c, VSOCK_OWES_CREDIT);
}

/* The host takes nothing any more: what the guest still sends is dropped, and it is told. */
static void vsock_conn_write_failed(struct vsock_conn *c)
{
	c->write_failed = true;
	vsock_conn_forwarded(c, ring_used(&c->ring));
	ring_consume(&c->ring, ring_used(&c->ring));
	if (c->state == VSOCK_OPEN)
		vsock_conn_host_shuts(c, VSOCK_SHUTDOWN_RECV);
}

/* Writes IOV; returns how much went, 0 when the socket is full or has failed: then C may be DEAD. */
static size_t vsock_conn_write(struct vsock_conn *c, const struct iovec *iov, size_t n)
{
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = n };
	ssize_t r;

	do
		r = sendmsg(c->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (r < 0 && errno == EINTR);
	if (r >= 0)
		return (size_t)r;
	if (errno == EAGAIN)
		vsock_conn_wait(c);
	else if (errno == EPIPE || c->state != VSOCK_OPEN)
		vsock_conn_write_failed(c);
	else
		vsock_conn_reset(
			c); /* the other direction is of no use either: the host has to see it */
	return 0;
}

/* The ring is empty: does what waited for that. */
static void vsock_conn_drained(struct vsock_conn *c)
{
	if (c->state == VSOCK_OPEN && (c->guest_shut & VSOCK_SHUTDOWN_SEND)) {
		shutdown(c->fd, SHUT_WR);
	} else if (c->state == VSOCK_DRAINING) {
		vsock_conn_close(c);
		loop_timer_clear(&c->timer);
		if (c->owes & VSOCK_OWES_RST)
			c->state = VSOCK_DEAD;
		else
			vsock_conn_end(c);
	}
}

static void vsock_conn_flush(struct vsock_conn *c)
{
	struct iovec iov[2];

	while (ring_used(&c->ring) > 0) {
		size_t n = vsock_conn_write(c, iov, (size_t)ring_iov(&c->ring, iov));

		if (n == 0)
			break;
		ring_consume(&c->ring, (uint32_t)n);
		vsock_conn_forwarded(c, (uint32_t)n);
	}
	if (ring_used(&c->ring) == 0)
		vsock_conn_drained(c);
}

/* Puts all but the first DONE bytes of IOV into the ring; there is room by the rule of credit. */
static void vsock_conn_keep(struct vsock_conn *c, const struct iovec *iov, size_t n, size_t done)
{
	for (size_t i = 0; i < n; i++) {
		size_t skip = done < iov[i].iov_len ? done : iov[i].iov_len;
		size_t len = iov[i].iov_len - skip;

		done -= skip;
		if (len == 0)
			continue;
		c->ring_touched = true;
		if (ring_put(&c->ring, (uint8_t *)iov[i].iov_base + skip, len) != len)
			assert(!"credit was checked");
	}
}

typedef void vsock_conn_handler(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n);

static void vsock_conn_on_data(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	size_t done = 0;

	if ((c->guest_shut & VSOCK_SHUTDOWN_SEND) ||
		p->len > VSOCK_BUF_BYTES - (c->rx_cnt - c->fwd_cnt)) {
		vsock_conn_reset(c);
		return;
	}
	c->rx_cnt += p->len;
	n = vsock_iov_cut(payload, n, p->len);
	if (ring_used(&c->ring) == 0 && !c->write_failed && p->len > 0)
		done = vsock_conn_write(c, payload, n);
	if (c->state == VSOCK_DEAD)
		return;
	if (c->write_failed)
		done = p->len;
	else
		vsock_conn_keep(c, payload, n, done);
	vsock_conn_forwarded(c, (uint32_t)done);
}

static void vsock_conn_on_shutdown(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	unsigned fresh = p->flags & VSOCK_SHUTDOWN_BOTH & ~c->guest_shut;

	c->guest_shut |= fresh;
	if (c->guest_shut == VSOCK_SHUTDOWN_BOTH) {
		/* a host program that never reads must not keep the slot for ever */
		loop_timer_set(c->loop, &c->timer, VSOCK_LINGER_USEC);
		c->state = VSOCK_DRAINING;
		c->owes = 0;
		vsock_conn_owe(c, VSOCK_OWES_RST);
	} else if (fresh & VSOCK_SHUTDOWN_RECV) {
		shutdown(c->fd, SHUT_RD);
	}
	if (fresh && ring_used(&c->ring) == 0)
		vsock_conn_drained(c);
}

static void vsock_conn_on_credit(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	/* vsock_conn_input() has noted it */
}

static void vsock_conn_on_credit_request(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	vsock_conn_owe(c, VSOCK_OWES_CREDIT);
}

static void vsock_conn_on_response(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	char line[32];
	struct iovec iov = { line, 0 };

	iov.iov_len = (size_t)snprintf(line, sizeof line, "OK %u\n", c->key.peer_port);
	loop_timer_clear(&c->timer);
	c->state = VSOCK_OPEN;
	/* an empty socket takes a line; one that does not has gone */
	if (vsock_conn_write(c, &iov, 1) != iov.iov_len)
		vsock_conn_reset(c);
}

static void vsock_conn_on_rst(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	if (c->state == VSOCK_DRAINING)
		c->owes = 0; /* it was told already; the bytes still go on */
	else
		vsock_conn_end(c);
}

static void vsock_conn_ignore(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
}

static void vsock_conn_protest(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	vsock_conn_reset(c);
}

static vsock_conn_handler *const vsock_handlers[VSOCK_CONN_STATES][VSOCK_OP_END] = {
	[VSOCK_FREE] = { NULL }, /* nobody finds a free one */
	[VSOCK_REQUESTED] = {
		[VSOCK_OP_INVALID] = vsock_conn_protest,
		[VSOCK_OP_REQUEST] = vsock_conn_protest,
		[VSOCK_OP_RESPONSE] = vsock_conn_on_response,
		[VSOCK_OP_RST] = vsock_conn_on_rst,
		[VSOCK_OP_SHUTDOWN] = vsock_conn_protest,
		[VSOCK_OP_RW] = vsock_conn_protest,
		[VSOCK_OP_CREDIT_UPDATE] = vsock_conn_protest,
		[VSOCK_OP_CREDIT_REQUEST] = vsock_conn_protest,
	},
	[VSOCK_OPEN] = {
		[VSOCK_OP_INVALID] = vsock_conn_protest,
		[VSOCK_OP_REQUEST] = vsock_conn_protest,
		[VSOCK_OP_RESPONSE] = vsock_conn_protest,
		[VSOCK_OP_RST] = vsock_conn_on_rst,
		[VSOCK_OP_SHUTDOWN] = vsock_conn_on_shutdown,
		[VSOCK_OP_RW] = vsock_conn_on_data,
		[VSOCK_OP_CREDIT_UPDATE] = vsock_conn_on_credit,
		[VSOCK_OP_CREDIT_REQUEST] = vsock_conn_on_credit_request,
	},
	[VSOCK_DRAINING] = {
		[VSOCK_OP_INVALID] = vsock_conn_ignore,
		[VSOCK_OP_REQUEST] = vsock_conn_protest,
		[VSOCK_OP_RESPONSE] = vsock_conn_ignore,
		[VSOCK_OP_RST] = vsock_conn_on_rst,
		[VSOCK_OP_SHUTDOWN] = vsock_conn_ignore,
		[VSOCK_OP_RW] = vsock_conn_ignore,
		[VSOCK_OP_CREDIT_UPDATE] = vsock_conn_ignore,
		[VSOCK_OP_CREDIT_REQUEST] = vsock_conn_ignore,
	},
	[VSOCK_DEAD] = {
		[VSOCK_OP_INVALID] = vsock_conn_ignore,
		[VSOCK_OP_REQUEST] = vsock_conn_ignore,
		[VSOCK_OP_RESPONSE] = vsock_conn_ignore,
		[VSOCK_OP_RST] = vsock_conn_on_rst,
		[VSOCK_OP_SHUTDOWN] = vsock_conn_ignore,
		[VSOCK_OP_RW] = vsock_conn_ignore,
		[VSOCK_OP_CREDIT_UPDATE] = vsock_conn_ignore,
		[VSOCK_OP_CREDIT_REQUEST] = vsock_conn_ignore,
	},
};

static void vsock_conn_note_credit(struct vsock_conn *c, const struct vsock_pkt *p)
{
	c->guest_alloc = p->buf_alloc;
	c->guest_fwd = p->fwd_cnt;
	if (vsock_conn_credit(c) > 0)
		c->credit_asked = false;
}

void vsock_conn_input(
	struct vsock_conn *c, const struct vsock_pkt *p, struct iovec *payload, size_t n)
{
	uint16_t op = p->op < VSOCK_OP_END ? p->op : VSOCK_OP_INVALID;

	assert(c->state != VSOCK_FREE);
	if (op != VSOCK_OP_RST)
		vsock_conn_note_credit(c, p);
	vsock_handlers[c->state][op](c, p, payload, n);
	if (c->state != VSOCK_FREE && vsock_conn_is_ready(c))
		c->hooks->ready(c);
}

/* beginnings */

static void vsock_conn_renew(struct vsock_conn *c, const struct vsock_key *key)
{
	uint16_t hash_next = c->hash_next; /* the table has it already */

	assert(c->state == VSOCK_FREE);
	vsock_conn_init(c, c->loop, c->hooks, c->owner, c->ring.data);
	c->hash_next = hash_next;
	c->key = *key;
}

static int vsock_conn_begin(struct vsock_conn *c, const struct vsock_key *key,
	enum vsock_conn_state state, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	struct loop *loop = c->loop;
	int r;

	vsock_conn_renew(c, key);
	r = loop_source_add(loop, &c->source, fd, VSOCK_CONN_EVENTS);
	if (r < 0)
		return r;
	c->fd = TAKE_FD(fd);
	c->state = state;
	return 0;
}

int vsock_conn_accept(struct vsock_conn *c, const struct vsock_key *key, const struct vsock_pkt *p,
	int fd_consume)
{
	int r = vsock_conn_begin(c, key, VSOCK_OPEN, fd_consume);

	if (r < 0)
		return r;
	vsock_conn_note_credit(c, p);
	vsock_conn_owe(c, VSOCK_OWES_RESPONSE);
	return 0;
}

int vsock_conn_call(struct vsock_conn *c, const struct vsock_key *key, int fd_consume)
{
	int r = vsock_conn_begin(c, key, VSOCK_REQUESTED, fd_consume);

	if (r < 0)
		return r;
	loop_timer_set(c->loop, &c->timer, VSOCK_REQUEST_USEC);
	vsock_conn_owe(c, VSOCK_OWES_REQUEST);
	return 0;
}

void vsock_conn_bury(struct vsock_conn *c, const struct vsock_key *key)
{
	vsock_conn_renew(c, key);
	c->state = VSOCK_DEAD;
	vsock_conn_owe(c, VSOCK_OWES_RST);
}

void vsock_conn_save(const struct vsock_conn *c, struct vsock_conn_saved *ret)
{
	*ret = (struct vsock_conn_saved){ .state = c->state,
		.key = c->key,
		.owes = c->owes,
		.guest_shut = c->guest_shut,
		.host_shut = c->host_shut,
		.write_failed = c->write_failed,
		.credit_asked = c->credit_asked,
		.rx_cnt = c->rx_cnt,
		.fwd_cnt = c->fwd_cnt,
		.fwd_told = c->fwd_told,
		.tx_cnt = c->tx_cnt,
		.guest_alloc = c->guest_alloc,
		.guest_fwd = c->guest_fwd,
		.timer_usec = loop_timer_left(&c->timer),
		.ring_bytes = ring_used(&c->ring) };
}

int vsock_conn_restore(
	struct vsock_conn *c, const struct vsock_conn_saved *s, const uint8_t *ring, int fd_consume)
{
	int r;

	if (s->state == VSOCK_DEAD) {
		vsock_conn_bury(c, &s->key);
		return 0;
	}
	/* what the socket has to say is an event again, as it is watched anew */
	r = vsock_conn_begin(c, &s->key, s->state, fd_consume);
	if (r < 0)
		return r;
	c->guest_shut = s->guest_shut;
	c->host_shut = s->host_shut;
	c->write_failed = s->write_failed;
	c->credit_asked = s->credit_asked;
	c->rx_cnt = s->rx_cnt;
	c->fwd_cnt = s->fwd_cnt;
	c->fwd_told = s->fwd_told;
	c->tx_cnt = s->tx_cnt;
	c->guest_alloc = s->guest_alloc;
	c->guest_fwd = s->guest_fwd;
	if (s->ring_bytes > 0)
		vsock_conn_keep(c, &(struct iovec){ (void *)ring, s->ring_bytes }, 1, 0);
	if (s->timer_usec != UINT64_MAX)
		loop_timer_set(c->loop, &c->timer, s->timer_usec);
	if (s->owes)
		vsock_conn_owe(c, s->owes);
	return 0;
}

/* the socket */

static void vsock_conn_event(struct loop_source *s, uint32_t events)
{
	struct vsock_conn *c = CONTAINER_OF(s, struct vsock_conn, source);

	if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR))
		c->readable = true;
	if (events & (EPOLLHUP | EPOLLERR))
		c->hangup = true;
	/* the caller has left before the guest answered */
	if (c->state == VSOCK_REQUESTED && c->hangup) {
		vsock_conn_timeout(&c->timer);
		return;
	}
	if (c->hangup && c->state == VSOCK_OPEN &&
		((c->host_shut & VSOCK_SHUTDOWN_SEND) || (c->guest_shut & VSOCK_SHUTDOWN_RECV)))
		vsock_conn_host_shuts(c, VSOCK_SHUTDOWN_BOTH);
	if (events & (EPOLLOUT | EPOLLHUP | EPOLLERR) && c->state != VSOCK_REQUESTED &&
		ring_used(&c->ring) > 0)
		vsock_conn_flush(c);
	if (c->state != VSOCK_FREE && vsock_conn_is_ready(c))
		c->hooks->ready(c);
}
