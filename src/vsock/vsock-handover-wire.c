#include "vsock-handover-wire.h"

#include <errno.h>
#include <string.h>

#include "vsock-host.h"

enum {
	VSOCK_HANDOVER_WRITE_FAILED = 1 << 0,
	VSOCK_HANDOVER_CREDIT_ASKED = 1 << 1,
};

/* What a connection may owe in each state. */
static const unsigned vsock_handover_owes[VSOCK_CONN_STATES] = {
	[VSOCK_REQUESTED] = VSOCK_OWES_REQUEST,
	[VSOCK_OPEN] = VSOCK_OWES_RESPONSE | VSOCK_OWES_SHUTDOWN | VSOCK_OWES_CREDIT |
		       VSOCK_OWES_CREDIT_REQUEST,
	[VSOCK_DRAINING] = VSOCK_OWES_RST,
	[VSOCK_DEAD] = VSOCK_OWES_RST,
};

static void put(uint8_t *to, uint64_t v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = (uint8_t)(v >> 8 * i);
}

static uint64_t get(const uint8_t *from, size_t n)
{
	uint64_t v = 0;

	for (size_t i = n; i > 0; i--)
		v = v << 8 | from[i - 1];
	return v;
}

void vsock_handover_put(
	uint8_t out[static VSOCK_HANDOVER_BYTES], const struct vsock_handover_msg *m)
{
	const struct vsock_conn_saved *c = &m->conn;
	const uint32_t counts[] = { c->rx_cnt, c->fwd_cnt, c->fwd_told, c->tx_cnt, c->guest_alloc,
		c->guest_fwd };

	memset(out, 0, VSOCK_HANDOVER_BYTES);
	put(out, VSOCK_HANDOVER_MAGIC, 4);
	out[4] = (uint8_t)m->kind;
	out[5] = (uint8_t)c->state;
	out[6] = (uint8_t)c->guest_shut;
	out[7] = (uint8_t)c->host_shut;
	put(out + 8, c->key.type, 2);
	put(out + 10, c->owes, 2);
	put(out + 12,
		(c->write_failed ? VSOCK_HANDOVER_WRITE_FAILED : 0) |
			(c->credit_asked ? VSOCK_HANDOVER_CREDIT_ASKED : 0),
		4);
	put(out + 16, c->key.peer_cid, 8);
	put(out + 24, c->key.peer_port, 4);
	put(out + 28, c->key.guest_port, 4);
	for (size_t i = 0; i < 6; i++)
		put(out + 32 + 4 * i, counts[i], 4);
	put(out + 56, c->timer_usec, 8);
	put(out + 64, c->ring_bytes, 4);
	put(out + 68, m->count, 4);
}

static void vsock_handover_parse(const uint8_t *in, struct vsock_handover_msg *m)
{
	uint64_t flags = get(in + 12, 4);

	*m = (struct vsock_handover_msg){
		.kind = (enum vsock_handover_kind)in[4],
		.count = (uint32_t)get(in + 68, 4),
		.conn = {
			.state = (enum vsock_conn_state)in[5],
			.guest_shut = in[6],
			.host_shut = in[7],
			.owes = (unsigned)get(in + 10, 2),
			.write_failed = flags & VSOCK_HANDOVER_WRITE_FAILED,
			.credit_asked = flags & VSOCK_HANDOVER_CREDIT_ASKED,
			.key = { get(in + 16, 8), (uint32_t)get(in + 24, 4),
				(uint32_t)get(in + 28, 4), (uint16_t)get(in + 8, 2) },
			.rx_cnt = (uint32_t)get(in + 32, 4),
			.fwd_cnt = (uint32_t)get(in + 36, 4),
			.fwd_told = (uint32_t)get(in + 40, 4),
			.tx_cnt = (uint32_t)get(in + 44, 4),
			.guest_alloc = (uint32_t)get(in + 48, 4),
			.guest_fwd = (uint32_t)get(in + 52, 4),
			.timer_usec = get(in + 56, 8),
			.ring_bytes = (uint32_t)get(in + 64, 4),
		},
	};
}

static bool vsock_handover_timer_fits(const struct vsock_conn_saved *c)
{
	switch (c->state) {
	case VSOCK_REQUESTED: return c->timer_usec <= VSOCK_REQUEST_USEC;
	case VSOCK_DRAINING: return c->timer_usec <= VSOCK_LINGER_USEC;
	case VSOCK_OPEN:
		return c->timer_usec <= VSOCK_SHUTDOWN_USEC ||
		       c->timer_usec == VSOCK_HANDOVER_NEVER;
	default: return c->timer_usec == VSOCK_HANDOVER_NEVER;
	}
}

static bool vsock_handover_ring_fits(const struct vsock_conn_saved *c)
{
	if (c->state == VSOCK_REQUESTED && (c->rx_cnt || c->fwd_cnt || c->tx_cnt))
		return false;
	if (c->state == VSOCK_DEAD)
		return c->ring_bytes == 0;
	if (c->ring_bytes > VSOCK_BUF_BYTES || c->ring_bytes != c->rx_cnt - c->fwd_cnt)
		return false;
	return c->ring_bytes == 0 ? c->state != VSOCK_DRAINING : !c->write_failed;
}

static bool vsock_handover_conn_fits(const struct vsock_conn_saved *c, size_t n_fds)
{
	if (c->state == VSOCK_FREE || c->state >= VSOCK_CONN_STATES)
		return false;
	if (c->key.peer_cid != VSOCK_CID_HOST || c->key.type != VSOCK_TYPE_STREAM)
		return false;
	if ((c->owes & ~vsock_handover_owes[c->state]) ||
		(c->state == VSOCK_DEAD && c->owes != VSOCK_OWES_RST))
		return false;
	if (c->guest_shut > VSOCK_SHUTDOWN_BOTH || c->host_shut > VSOCK_SHUTDOWN_BOTH ||
		(c->state == VSOCK_OPEN && c->guest_shut == VSOCK_SHUTDOWN_BOTH) ||
		(c->state == VSOCK_DRAINING && c->guest_shut != VSOCK_SHUTDOWN_BOTH))
		return false;
	if (n_fds != (c->state != VSOCK_DEAD))
		return false;
	return vsock_handover_timer_fits(c) && vsock_handover_ring_fits(c);
}

int vsock_handover_get(
	const uint8_t *bytes, size_t len, size_t n_fds, struct vsock_handover_msg *ret)
{
	struct vsock_handover_msg m, only;
	uint8_t again[VSOCK_HANDOVER_BYTES];

	if (len < VSOCK_HANDOVER_BYTES)
		return -EBADMSG;
	vsock_handover_parse(bytes, &m);
	only = (struct vsock_handover_msg){ .kind = m.kind };
	switch (m.kind) {
	case VSOCK_HANDOVER_CONN:
		if (!vsock_handover_conn_fits(&m.conn, n_fds))
			return -EBADMSG;
		only.conn = m.conn;
		break;
	case VSOCK_HANDOVER_PENDING:
		if (n_fds != 1 || m.conn.timer_usec > VSOCK_HANDSHAKE_USEC)
			return -EBADMSG;
		only.conn.timer_usec = m.conn.timer_usec;
		break;
	case VSOCK_HANDOVER_RESET: only.conn.key = m.conn.key; break;
	case VSOCK_HANDOVER_END: only.count = m.count; break;
	case VSOCK_HANDOVER_TAKEN: break;
	default: return -EBADMSG;
	}
	if (m.kind != VSOCK_HANDOVER_CONN && m.kind != VSOCK_HANDOVER_PENDING && n_fds != 0)
		return -EBADMSG;
	/* nothing else is set, and there is one way to say each thing */
	vsock_handover_put(again, &only);
	if (memcmp(again, bytes, sizeof again) != 0 ||
		len != VSOCK_HANDOVER_BYTES + only.conn.ring_bytes)
		return -EBADMSG;
	*ret = only;
	return 0;
}
