/* Connections on their way from one engine to another, and what is refused on it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fdpass.h"
#include "unit.h"
#include "vsock-handover.h"

#define CID 42

static struct loop loop;
static struct vsock_mux a, b;
static struct vsock_host host_a, host_b;
static struct vsock_handover v;
static int far_end[8], n_far, channel[2];

static void wake(struct vsock_mux *m)
{
}

static int dial(struct vsock_mux *m, uint32_t port)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	far_end[n_far++] = pair[1];
	return pair[0];
}

static void refused(struct vsock_mux *m, enum vsock_way way, uint32_t port, const char *why)
{
}

static void called(struct vsock_host *h, uint32_t port, int fd_consume)
{
	close(fd_consume);
}

static const struct vsock_mux_hooks hooks = { wake, dial, refused };

static int listener(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_true(fd >= 0 && listen(fd, 1) < 1);
	return fd;
}

static void begin(void)
{
	const int bytes = 1 << 20;

	n_far = 0;
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(vsock_mux_init(&a, &loop, &hooks, CID, 1), 0);
	assert_int_equal(vsock_mux_init(&b, &loop, &hooks, CID, 2), 0);
	assert_int_equal(vsock_host_open(&host_a, &loop, "v", called, listener()), 0);
	assert_int_equal(vsock_host_open(&host_b, &loop, "v", called, listener()), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, channel), 0);
	setsockopt(channel[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void finish(void)
{
	vsock_mux_finish(&a);
	vsock_mux_finish(&b);
	vsock_host_close(&host_a);
	vsock_host_close(&host_b);
	while (n_far > 0)
		close(far_end[--n_far]);
	close(channel[0]);
	close(channel[1]);
	loop_finish(&loop);
}

static void input(struct vsock_mux *m, uint16_t op, uint32_t guest_port, uint32_t flags, void *data,
	size_t len)
{
	struct iovec iov = { data, len };
	struct vsock_pkt p = { .src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = guest_port,
		.dst_port = 7000,
		.type = VSOCK_TYPE_STREAM,
		.op = op,
		.flags = flags,
		.len = (uint32_t)len,
		.buf_alloc = 65536 };

	vsock_mux_input(m, &p, &iov, len > 0, len);
}

static bool output(struct vsock_mux *m, struct vsock_pkt *ret, void *buf, size_t size)
{
	struct iovec iov = { buf, size };

	return vsock_mux_output(m, ret, &iov, 1, size);
}

static void drain(struct vsock_mux *m)
{
	uint8_t buf[4096];
	struct vsock_pkt p;

	while (output(m, &p, buf, sizeof buf))
		;
}

/* The other's word is there before it is asked for: all in one thread. */
static int go(void)
{
	uint8_t bytes[VSOCK_HANDOVER_BYTES];
	int r;

	vsock_handover_put(bytes, &(struct vsock_handover_msg){ .kind = VSOCK_HANDOVER_TAKEN });
	assert_int_equal(send(channel[1], bytes, sizeof bytes, 0), sizeof bytes);
	r = vsock_handover_send(&v, &a, &host_a, channel[0]);
	return r < 0 ? r : vsock_handover_receive(&v, &b, &host_b, channel[1]);
}

static struct vsock_conn *find(struct vsock_mux *m, uint32_t guest_port)
{
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_conn *c = &m->table.conns[i];

		if (c->state != VSOCK_FREE && c->key.guest_port == guest_port)
			return c;
	}
	fail();
	return NULL;
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

/* Bytes that the socket did not take arrive from the other engine, behind those it did, and in order. */
static void bytes_go_on(void **state)
{
	static uint8_t data[65536], got[1 << 20];
	size_t n = 0, sent = 0;
	struct vsock_pkt p;
	struct vsock_conn *c;

	begin();
	input(&a, VSOCK_OP_REQUEST, 1, 0, NULL, 0);
	drain(&a);
	c = find(&a, 1);
	while (ring_room(&c->ring) > 20000) {
		for (size_t i = 0; i < 20000; i++)
			data[i] = pattern(sent + i);
		input(&a, VSOCK_OP_RW, 1, 0, data, 20000);
		sent += 20000;
	}
	assert_true(ring_used(&c->ring) > 0);
	assert_int_equal(write(far_end[0], "to the guest", 12), 12);
	c->source.fn(&c->source, EPOLLIN);
	drain(&a); /* the guest has read nothing of what it got */
	assert_int_equal(go(), 0);
	assert_int_equal(b.table.n_used, 1);
	vsock_mux_finish(&a); /* which closes nothing for good */
	for (ssize_t r = 1; n < sent && r != 0;) {
		c = find(&b, 1);
		r = recv(far_end[0], got + n, sizeof got - n, MSG_DONTWAIT);
		n += r > 0 ? (size_t)r : 0;
		c->source.fn(&c->source, EPOLLOUT);
	}
	assert_int_equal(n, sent);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(got[i], pattern(i));
	c = find(&b, 1);
	assert_int_equal(c->fwd_cnt, sent);
	assert_int_equal(c->tx_cnt, 12);
	assert_true(output(&b, &p, data, sizeof data));
	assert_int_equal(p.op, VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(p.fwd_cnt, sent);
	assert_int_equal(write(far_end[0], "more", 4), 4);
	c->source.fn(&c->source, EPOLLIN);
	assert_true(output(&b, &p, data, sizeof data));
	assert_int_equal(p.op, VSOCK_OP_RW);
	assert_memory_equal(data, "more", 4);
	assert_int_equal(c->tx_cnt, 16);
	finish();
}

/* One in each state, a caller without a line, a reset of nobody's: all are there, and owe what they owed. */
static void every_state(void **state)
{
	static uint8_t data[65536];
	struct vsock_conn *c;
	int pair[2], caller[2];

	begin();
	for (uint32_t port = 1; port <= 4; port++)
		input(&a, VSOCK_OP_REQUEST, port, 0, NULL, 0);
	drain(&a);
	input(&a, VSOCK_OP_SHUTDOWN, 2, VSOCK_SHUTDOWN_SEND, NULL, 0);
	while (ring_used(&find(&a, 3)->ring) == 0)
		input(&a, VSOCK_OP_RW, 3, 0, data, 16384);
	input(&a, VSOCK_OP_SHUTDOWN, 3, VSOCK_SHUTDOWN_BOTH, NULL, 0);
	input(&a, VSOCK_OP_INVALID, 4, 0, NULL, 0);
	input(&a, VSOCK_OP_RW, 99, 0, data, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(vsock_mux_call(&a, 5, pair[0]), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, caller), 0);
	assert_int_equal(vsock_host_restore(&host_a, 1000, caller[0]), 0);
	assert_int_equal(go(), 0);
	assert_int_equal(b.table.n_used, 5);
	assert_int_equal(b.n_resets, 1);
	assert_false(list_empty(&host_b.waiting));
	for (uint32_t port = 1; port <= 5; port++) {
		struct vsock_handover_msg x = { 0 }, y = { 0 };
		uint8_t one[VSOCK_HANDOVER_BYTES], two[VSOCK_HANDOVER_BYTES];

		c = find(&b, port);
		vsock_conn_save(find(&a, port), &x.conn);
		vsock_conn_save(c, &y.conn);
		assert_int_equal(x.conn.timer_usec == UINT64_MAX, y.conn.timer_usec == UINT64_MAX);
		x.conn.timer_usec = y.conn.timer_usec = 0;
		vsock_handover_put(one, &x);
		vsock_handover_put(two, &y);
		if (port != 4) /* of a dead one there is but its reset */
			assert_memory_equal(one, two, sizeof one);
		assert_int_equal(c->fd >= 0, port != 4);
		assert_int_equal(!list_empty(&c->ready_link), y.conn.owes != 0);
	}
	close(pair[1]);
	close(caller[1]);
	finish();
}

/* When the other is not there nothing has changed. */
static void nobody_there(void **state)
{
	struct vsock_pkt p;

	begin();
	input(&a, VSOCK_OP_REQUEST, 1, 0, NULL, 0);
	close(channel[1]);
	channel[1] = dup(channel[0]);
	assert_int_equal(vsock_handover_send(&v, &a, &host_a, channel[0]), -EPIPE);
	assert_int_equal(find(&a, 1)->state, VSOCK_OPEN);
	assert_true(output(&a, &p, NULL, 0));
	assert_int_equal(p.op, VSOCK_OP_RESPONSE);
	finish();
}

static struct vsock_handover_msg sound(enum vsock_conn_state state)
{
	struct vsock_handover_msg m = { .kind = VSOCK_HANDOVER_CONN,
		.conn = { .state = state,
			.key = { 2, 7000, 1, VSOCK_TYPE_STREAM },
			.timer_usec =
				state == VSOCK_OPEN || state == VSOCK_DEAD ? UINT64_MAX : 1000,
			.owes = state == VSOCK_DEAD ? VSOCK_OWES_RST : 0 } };

	if (state == VSOCK_DRAINING) {
		m.conn.guest_shut = VSOCK_SHUTDOWN_BOTH;
		m.conn.ring_bytes = m.conn.rx_cnt = 5;
	}
	return m;
}

static int get(const struct vsock_handover_msg *m, size_t more, size_t n_fds)
{
	static uint8_t bytes[VSOCK_HANDOVER_MAX + 1];
	struct vsock_handover_msg out;

	vsock_handover_put(bytes, m);
	return vsock_handover_get(bytes, VSOCK_HANDOVER_BYTES + more, n_fds, &out);
}

static void lengths(void **state)
{
	static uint8_t bytes[VSOCK_HANDOVER_MAX + 1];
	struct vsock_handover_msg m = sound(VSOCK_DRAINING), out;

	vsock_handover_put(bytes, &m);
	for (size_t len = 0; len < sizeof bytes; len++)
		assert_int_equal(vsock_handover_get(bytes, len, 1, &out),
			len == VSOCK_HANDOVER_BYTES + 5 ? 0 : -EBADMSG);
	for (size_t i = 0; i < 6; i++) {
		m = sound(VSOCK_OPEN);
		m.kind = (enum vsock_handover_kind)(i == 5 ? 200 : i);
		assert_int_equal(get(&m, 0, 1), i == VSOCK_HANDOVER_CONN ? 0 : -EBADMSG);
	}
}

/* What no engine would say. */
static void refusals(void **state)
{
	struct vsock_handover_msg m;

#define BAD(from, change, n_fds)                                                                   \
	do {                                                                                       \
		m = sound(from);                                                                   \
		change;                                                                            \
		assert_int_equal(get(&m, m.conn.ring_bytes, n_fds), -EBADMSG);                     \
	} while (0)
	for (enum vsock_conn_state s = VSOCK_REQUESTED; s < VSOCK_CONN_STATES; s++) {
		m = sound(s);
		assert_int_equal(get(&m, m.conn.ring_bytes, s != VSOCK_DEAD), 0);
		BAD(s, (void)0, s == VSOCK_DEAD);
		BAD(s, (void)0, 2);
		BAD(s, m.conn.key.peer_cid = 3, s != VSOCK_DEAD);
		BAD(s, m.conn.key.type = VSOCK_TYPE_SEQPACKET, s != VSOCK_DEAD);
		BAD(s, m.conn.owes |= 1 << 6, s != VSOCK_DEAD);
		BAD(s, m.conn.host_shut = 4, s != VSOCK_DEAD);
		BAD(s, m.count = 1, s != VSOCK_DEAD);
		BAD(s, m.conn.timer_usec = UINT64_MAX - 1, s != VSOCK_DEAD);
		BAD(s, m.conn.ring_bytes = 65537; m.conn.rx_cnt = 65537, s != VSOCK_DEAD);
	}
	BAD(VSOCK_FREE, (void)0, 1);
	BAD(VSOCK_CONN_STATES, (void)0, 1);
	BAD(VSOCK_REQUESTED, m.conn.rx_cnt = m.conn.fwd_cnt = 1, 1);
	BAD(VSOCK_REQUESTED, m.conn.timer_usec = UINT64_MAX, 1);
	BAD(VSOCK_OPEN, m.conn.guest_shut = VSOCK_SHUTDOWN_BOTH, 1);
	BAD(VSOCK_OPEN, m.conn.rx_cnt = 1, 1);
	BAD(VSOCK_OPEN, m.conn.ring_bytes = 1, 1);
	BAD(VSOCK_OPEN, m.conn.owes = VSOCK_OWES_RST, 1);
	BAD(VSOCK_OPEN, m.conn.owes = VSOCK_OWES_REQUEST, 1);
	BAD(VSOCK_OPEN, m.conn.write_failed = true; m.conn.ring_bytes = m.conn.rx_cnt = 1, 1);
	BAD(VSOCK_DRAINING, m.conn.guest_shut = VSOCK_SHUTDOWN_SEND, 1);
	BAD(VSOCK_DRAINING, m.conn.ring_bytes = m.conn.rx_cnt = 0, 1);
	BAD(VSOCK_DEAD, m.conn.owes = 0, 0);
#undef BAD
}

/* In the order of messages, too: what comes twice, too much, or of no use ends it. */
static void sequences(void **state)
{
	struct vsock_handover_msg m = sound(VSOCK_DEAD),
				  end = { .kind = VSOCK_HANDOVER_END, .count = 1 };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	uint8_t bytes[VSOCK_HANDOVER_BYTES];

	for (int i = 0; i < 5; i++) {
		begin();
		m = sound(i == 3 ? VSOCK_OPEN : VSOCK_DEAD);
		vsock_handover_put(bytes, &m);
		assert_true(fdpass_send(channel[0], bytes, sizeof bytes, &null, i == 3) > 0);
		if (i == 1)
			assert_true(send(channel[0], bytes, sizeof bytes, 0) > 0);
		end.count = i == 2 ? 2 : 1;
		end.kind = i == 4 ? VSOCK_HANDOVER_TAKEN : VSOCK_HANDOVER_END;
		if (i == 4)
			end.count = 0;
		vsock_handover_put(bytes, &end);
		assert_true(send(channel[0], bytes, sizeof bytes, 0) > 0);
		assert_int_equal(
			vsock_handover_receive(&v, &b, &host_b, channel[1]), i == 0   ? 0
									     : i == 1 ? -EEXIST
									     : i == 3 ? -ENOTSOCK
										      : -EBADMSG);
		finish();
	}
	close(null);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_go_on),
		cmocka_unit_test(every_state),
		cmocka_unit_test(nobody_there),
		cmocka_unit_test(lengths),
		cmocka_unit_test(refusals),
		cmocka_unit_test(sequences),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
