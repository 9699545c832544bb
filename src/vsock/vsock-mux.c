#include "vsock-mux.h"

#include <errno.h>

#include "cleanup.h"
#include "fd.h"

static void vsock_mux_conn_ready(struct vsock_conn *c);
static void vsock_mux_conn_ended(struct vsock_conn *c);

static const struct vsock_conn_hooks vsock_mux_conn_hooks = {
	.ready = vsock_mux_conn_ready,
	.ended = vsock_mux_conn_ended,
};

static struct vsock_mux *vsock_mux_of(struct vsock_conn *c)
{
	return c->owner;
}

static void vsock_mux_conn_ready(struct vsock_conn *c)
{
	struct vsock_mux *m = vsock_mux_of(c);

	if (list_empty(&c->ready_link))
		list_append(&m->ready, &c->ready_link);
	m->hooks->wake(m);
}

static void vsock_mux_conn_ended(struct vsock_conn *c)
{
	list_remove(&c->ready_link);
	vsock_table_release(&vsock_mux_of(c)->table, c);
}

int vsock_mux_init(struct vsock_mux *m, struct loop *loop, const struct vsock_mux_hooks *hooks,
	uint64_t guest_cid, uint64_t seed)
{
	m->hooks = hooks;
	m->guest_cid = guest_cid;
	m->resets_head = m->n_resets = 0;
	m->has_served = false;
	list_init(&m->ready);
	return vsock_table_init(&m->table, loop, &vsock_mux_conn_hooks, m, seed);
}

void vsock_mux_finish(struct vsock_mux *m)
{
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		if (m->table.conns[i].state != VSOCK_FREE)
			vsock_conn_drop(&m->table.conns[i]);
	}
	vsock_table_finish(&m->table);
}

static void vsock_mux_bury(const struct vsock_key *key, void *userdata)
{
	struct vsock_mux *m = userdata;
	struct vsock_conn *c =
		vsock_table_find(&m->table, key) ? NULL : vsock_table_take(&m->table, key);

	if (c)
		vsock_conn_bury(c, key);
}

int vsock_mux_publish(struct vsock_mux *m, int fd)
{
	return vsock_table_publish(&m->table, fd, m->guest_cid, vsock_mux_bury, m);
}

int vsock_mux_restore(
	struct vsock_mux *m, const struct vsock_conn_saved *s, const uint8_t *ring, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume;
	struct vsock_conn *c;
	int r;

	if (vsock_table_find(&m->table, &s->key))
		return -EEXIST;
	c = vsock_table_take(&m->table, &s->key);
	if (!c)
		return -EMFILE;
	r = vsock_conn_restore(c, s, ring, TAKE_FD(fd));
	if (r < 0)
		vsock_table_release(&m->table, c);
	return r;
}

int vsock_mux_restore_reset(struct vsock_mux *m, const struct vsock_key *key)
{
	if (m->n_resets == VSOCK_RESETS_MAX)
		return -ENOSPC;
	m->resets[(m->resets_head + m->n_resets++) % VSOCK_RESETS_MAX] =
		(struct vsock_pkt){ .src_cid = key->peer_cid,
			.dst_cid = m->guest_cid,
			.src_port = key->peer_port,
			.dst_port = key->guest_port,
			.type = key->type,
			.op = VSOCK_OP_RST };
	m->hooks->wake(m);
	return 0;
}

int vsock_mux_call(struct vsock_mux *m, uint32_t port, int fd_consume)
{
	struct vsock_key key = {
		.peer_cid = VSOCK_CID_HOST, .guest_port = port, .type = VSOCK_TYPE_STREAM
	};
	struct vsock_conn *c;
	int r;

	if (!vsock_policy_allows(VSOCK_HOST_TO_GUEST, port)) {
		m->hooks->refused(m, VSOCK_HOST_TO_GUEST, port, "not allowed");
		fd_close(fd_consume);
		return -EACCES;
	}
	key.peer_port = vsock_table_port(&m->table, port);
	c = vsock_table_take(&m->table, &key);
	if (!c) {
		m->hooks->refused(m, VSOCK_HOST_TO_GUEST, port, "too many connections");
		fd_close(fd_consume);
		return -EMFILE;
	}
	r = vsock_conn_call(c, &key, fd_consume);
	if (r < 0)
		vsock_table_release(&m->table, c);
	return r;
}

/* guest → host */

bool vsock_mux_has_room(const struct vsock_mux *m)
{
	return m->n_resets < VSOCK_RESETS_MAX;
}

/* The answer to a packet that belongs to nobody. A RST is never answered. */
static void vsock_mux_reset(struct vsock_mux *m, const struct vsock_pkt *p)
{
	if (p->op == VSOCK_OP_RST || m->n_resets == VSOCK_RESETS_MAX)
		return;
	m->resets[(m->resets_head + m->n_resets++) % VSOCK_RESETS_MAX] = (struct vsock_pkt){
		.src_cid = p->dst_cid,
		.dst_cid = m->guest_cid,
		.src_port = p->dst_port,
		.dst_port = p->src_port,
		.type = p->type,
		.op = VSOCK_OP_RST,
	};
	m->hooks->wake(m);
}

/* How full the table may be for one more call of the guest to PORT. */
static unsigned vsock_mux_guest_max(uint32_t port)
{
	unsigned kept = VSOCK_CONNS_HOST;

	if (port == VSOCK_PORT_AGENT)
		kept -= VSOCK_CONNS_HOME;
	return VSOCK_CONNS_MAX - kept;
}

/* Opens the host's end for a REQUEST; NULL, or why not. */
static const char *vsock_mux_accept(
	struct vsock_mux *m, const struct vsock_key *key, const struct vsock_pkt *p)
{
	struct vsock_conn *c;
	int fd;

	if (!vsock_policy_allows(VSOCK_GUEST_TO_HOST, key->peer_port))
		return "not allowed";
	if (m->table.n_used >= vsock_mux_guest_max(key->peer_port))
		return "too many connections";
	c = vsock_table_take(&m->table, key);
	if (!c)
		return "too many connections";
	fd = m->hooks->dial(m, key->peer_port);
	if (fd >= 0 && vsock_conn_accept(c, key, p, fd) >= 0)
		return NULL;
	vsock_table_release(&m->table, c);
	switch (fd) {
	case -EAGAIN: return "the listener's queue is full";
	case -ENOENT:
	case -ECONNREFUSED: return "nobody listens";
	default: return "no connection possible";
	}
}

static void vsock_mux_opened(struct vsock_mux *m)
{
	if (m->has_served)
		return;
	m->has_served = true;
	if (m->hooks->served)
		m->hooks->served(m);
}

static void vsock_mux_request(
	struct vsock_mux *m, const struct vsock_key *key, const struct vsock_pkt *p)
{
	const char *why = vsock_mux_accept(m, key, p);

	if (!why) {
		vsock_mux_opened(m);
		return;
	}
	m->hooks->refused(m, VSOCK_GUEST_TO_HOST, key->peer_port, why);
	vsock_mux_reset(m, p);
}

void vsock_mux_input(struct vsock_mux *m, const struct vsock_pkt *p, struct iovec *payload,
	size_t n, uint64_t bytes)
{
	struct vsock_key key = { .peer_cid = p->dst_cid,
		.peer_port = p->dst_port,
		.guest_port = p->src_port,
		.type = p->type };
	struct vsock_pkt bad = *p;
	struct vsock_conn *c;

	if (p->src_cid != m->guest_cid)
		return; /* forged: there is nobody to answer */
	c = vsock_table_find(&m->table, &key);
	if (p->len > bytes) { /* it lies about its length */
		bad.op = VSOCK_OP_INVALID;
		p = &bad;
	}
	if (c) {
		vsock_conn_input(c, p, payload, n);
		if (c->state == VSOCK_OPEN)
			vsock_mux_opened(m);
	} else if (p->op == VSOCK_OP_REQUEST && p->type == VSOCK_TYPE_STREAM &&
		   p->dst_cid == VSOCK_CID_HOST) {
		vsock_mux_request(m, &key, p);
	} else {
		vsock_mux_reset(m, p);
	}
}

/* host → guest */

bool vsock_mux_has_output(const struct vsock_mux *m)
{
	return m->n_resets > 0 || !list_empty(&m->ready);
}

static bool vsock_mux_output_conn(struct vsock_mux *m, struct vsock_conn *c, struct vsock_pkt *ret,
	struct iovec *room, size_t n, uint64_t room_bytes)
{
	uint64_t peer_cid = c->key.peer_cid;
	bool got;

	list_remove(&c->ready_link);
	got = vsock_conn_output(c, ret, room, n, room_bytes);
	ret->src_cid = peer_cid;
	ret->dst_cid = m->guest_cid;
	/* to the end of the line: one packet a turn */
	if (c->state != VSOCK_FREE && vsock_conn_is_ready(c) && list_empty(&c->ready_link))
		list_append(&m->ready, &c->ready_link);
	return got;
}

bool vsock_mux_output(struct vsock_mux *m, struct vsock_pkt *ret, struct iovec *room, size_t n,
	uint64_t room_bytes)
{
	if (m->n_resets > 0) {
		*ret = m->resets[m->resets_head];
		m->resets_head = (m->resets_head + 1) % VSOCK_RESETS_MAX;
		m->n_resets--;
		return true;
	}
	while (!list_empty(&m->ready)) {
		struct vsock_conn *c = CONTAINER_OF(m->ready.next, struct vsock_conn, ready_link);

		if (vsock_mux_output_conn(m, c, ret, room, n, room_bytes))
			return true;
	}
	return false;
}

void vsock_mux_settle(struct vsock_mux *m)
{
	vsock_table_settle(&m->table);
}

void vsock_mux_guest_absent(struct vsock_mux *m)
{
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = &m->table.conns[i];

		/* a call that the guest has not seen has its own deadline */
		if (c->state != VSOCK_FREE && !(c->owes & VSOCK_OWES_REQUEST))
			vsock_conn_abort(c);
	}
}

void vsock_mux_guest_reset(struct vsock_mux *m)
{
	m->n_resets = 0;
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = &m->table.conns[i];

		if (c->state != VSOCK_FREE && !(c->owes & VSOCK_OWES_REQUEST))
			vsock_conn_drop(c);
	}
}
