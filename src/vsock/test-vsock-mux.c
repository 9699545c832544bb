/* The engine alone: whom a packet belongs to, who is refused, and that a flood bounds itself. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "sandbox.h"
#include "unit.h"
#include "vsock-mux.h"

#define CID 42

static struct loop loop;
static struct vsock_mux m;
static int dial_result; /* -errno, or 0: a socket pair whose other end is in far_end */
static int far_end[VSOCK_CONNS_MAX], n_far, n_dials, n_refused;
static const char *why_refused;

static void wake(struct vsock_mux *mux)
{
}

static int dial(struct vsock_mux *mux, uint32_t port)
{
	int pair[2];

	n_dials++;
	if (dial_result < 0)
		return dial_result;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	far_end[n_far++] = pair[1];
	return pair[0];
}

static void refused(struct vsock_mux *mux, enum vsock_way way, uint32_t port, const char *why)
{
	n_refused++;
	why_refused = why;
}

static const struct vsock_mux_hooks hooks = { wake, dial, refused };

static void begin(void)
{
	dial_result = n_far = n_dials = n_refused = 0;
	why_refused = NULL;
	assert_int_equal(loop_init(&loop), 0);
	assert_int_equal(vsock_mux_init(&m, &loop, &hooks, CID, 7), 0);
}

static void finish(void)
{
	vsock_mux_finish(&m);
	assert_int_equal(m.table.n_used, 0);
	while (n_far > 0)
		close(far_end[--n_far]);
	loop_finish(&loop);
}

static struct vsock_pkt pkt(uint16_t op, uint32_t guest_port, uint32_t port)
{
	return (struct vsock_pkt){ .src_cid = CID,
		.dst_cid = VSOCK_CID_HOST,
		.src_port = guest_port,
		.dst_port = port,
		.type = VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = 65536 };
}

static void input(const struct vsock_pkt *p)
{
	vsock_mux_input(&m, p, NULL, 0, 0);
}

static bool output(struct vsock_pkt *ret)
{
	static uint8_t buf[4096];
	struct iovec iov = { buf, sizeof buf };

	return vsock_mux_output(&m, ret, &iov, 1, sizeof buf);
}

/* The answer to P is OP, and nothing else; 0: none at all. */
static void answer(const struct vsock_pkt *p, uint16_t op)
{
	struct vsock_pkt got;

	input(p);
	assert_int_equal(output(&got), op != 0);
	if (op == 0)
		return;
	assert_string_equal(vsock_wire_op_name(got.op), vsock_wire_op_name(op));
	assert_int_equal(got.src_cid, p->dst_cid);
	assert_int_equal(got.dst_cid, CID);
	assert_int_equal(got.src_port, p->dst_port);
	assert_int_equal(got.dst_port, p->src_port);
	assert_int_equal(got.type, p->type);
	assert_false(output(&got));
}

static void strangers(void **state)
{
	struct vsock_pkt p;

	begin();
	for (uint16_t op = 0; op < VSOCK_OP_END + 2; op++) {
		if (op == VSOCK_OP_REQUEST)
			continue;
		p = pkt(op, 1000, 7000);
		answer(&p, op == VSOCK_OP_RST ? 0 : VSOCK_OP_RST);
		p.src_cid = CID + 1; /* forged */
		answer(&p, 0);
	}
	for (uint64_t cid = 0; cid < 60; cid++) {
		p = pkt(VSOCK_OP_REQUEST, 1000, 7000);
		p.dst_cid = cid;
		if (cid != VSOCK_CID_HOST)
			answer(&p, VSOCK_OP_RST);
	}
	assert_int_equal(n_dials, 0);
	assert_int_equal(m.table.n_used, 0);
	finish();
}

static void refusals(void **state)
{
	static const struct {
		int dial;
		const char *why;
	} cases[] = {
		{ -EAGAIN, "the listener's queue is full" },
		{ -ENOENT, "nobody listens" },
		{ -ECONNREFUSED, "nobody listens" },
		{ -EMFILE, "no connection possible" },
	};
	struct vsock_pkt p = pkt(VSOCK_OP_REQUEST, 1000, 7000);

	begin();
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		dial_result = cases[i].dial;
		answer(&p, VSOCK_OP_RST);
		assert_string_equal(why_refused, cases[i].why);
		assert_int_equal(m.table.n_used, 0);
	}
	p.dst_port = UINT32_MAX;
	answer(&p, VSOCK_OP_RST);
	assert_string_equal(why_refused, "not allowed");
	assert_int_equal(vsock_mux_call(&m, UINT32_MAX, dup(0)), -EACCES);
	finish();
}

/* The reserve: the guest's calls end at their share, home calls at theirs, the host's nowhere. */
static void places(void **state)
{
	const unsigned share = VSOCK_CONNS_MAX - VSOCK_CONNS_HOST;
	struct vsock_pkt p;
	int pair[2];

	if (sandbox_want_fds(3 * VSOCK_CONNS_MAX) < 0)
		skip();
	begin();
	for (unsigned i = 0; i < share; i++) {
		p = pkt(VSOCK_OP_REQUEST, 1000 + i, 7000);
		answer(&p, VSOCK_OP_RESPONSE);
	}
	p = pkt(VSOCK_OP_REQUEST, 1, 7000);
	answer(&p, VSOCK_OP_RST);
	assert_string_equal(why_refused, "too many connections");
	for (unsigned i = 0; i < VSOCK_CONNS_HOME; i++) {
		p = pkt(VSOCK_OP_REQUEST, 1000 + i, VSOCK_PORT_AGENT);
		answer(&p, VSOCK_OP_RESPONSE);
	}
	p = pkt(VSOCK_OP_REQUEST, 1, VSOCK_PORT_AGENT);
	answer(&p, VSOCK_OP_RST);
	assert_int_equal(n_dials, share + VSOCK_CONNS_HOME); /* who is refused is not dialled for */
	for (unsigned i = share + VSOCK_CONNS_HOME; i < VSOCK_CONNS_MAX; i++) {
		assert_int_equal(
			socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			0);
		assert_int_equal(vsock_mux_call(&m, VSOCK_PORT_AGENT, pair[0]), 0);
		far_end[n_far++] = pair[1];
	}
	assert_int_equal(vsock_mux_call(&m, VSOCK_PORT_AGENT, dup(0)), -EMFILE);
	/* one that ends makes room for the host, not for the guest */
	p = pkt(VSOCK_OP_RST, 1000, 7000);
	input(&p);
	p = pkt(VSOCK_OP_REQUEST, 1000, 7000);
	input(&p);
	assert_int_equal(m.table.n_used, VSOCK_CONNS_MAX - 1);
	finish();
}

/* Answers that are not taken fill their places, and then nothing more may be put in. */
static void resets_bound_themselves(void **state)
{
	struct vsock_pkt got, p;
	unsigned n = 0;

	begin();
	while (vsock_mux_has_room(&m)) {
		p = pkt(VSOCK_OP_RW, 1000 + n++, 7000);
		input(&p);
	}
	assert_int_equal(n, VSOCK_RESETS_MAX);
	input(&p); /* against the rule: dropped */
	for (unsigned i = 0; i < VSOCK_RESETS_MAX; i++) {
		assert_true(output(&got));
		assert_int_equal(got.dst_port, 1000 + i);
	}
	assert_false(output(&got));
	finish();
}

/* Everything ends but the call that the guest has not seen. */
static void guest_reset(void **state)
{
	struct vsock_pkt p = pkt(VSOCK_OP_REQUEST, 1000, 7000), got;
	int pair[2];
	char c;

	begin();
	answer(&p, VSOCK_OP_RESPONSE);
	p = pkt(VSOCK_OP_RW, 1, 1);
	input(&p);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(vsock_mux_call(&m, 5000, pair[0]), 0);
	vsock_mux_guest_reset(&m);
	assert_int_equal(m.table.n_used, 1);
	assert_int_equal(read(far_end[0], &c, 1), 0);
	assert_int_equal(recv(pair[1], &c, 1, MSG_DONTWAIT), -1);
	assert_true(output(&got));
	assert_int_equal(got.op, VSOCK_OP_REQUEST);
	assert_int_equal(got.dst_port, 5000);
	assert_false(output(&got));
	close(pair[1]);
	finish();
}

/* The host's side ends now, the guest's when it is back; a call that it has not seen stays. */
static void guest_absent(void **state)
{
	struct vsock_pkt p = pkt(VSOCK_OP_REQUEST, 1000, 7000), got;
	int pair[2];
	char c;

	begin();
	answer(&p, VSOCK_OP_RESPONSE);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(vsock_mux_call(&m, 5000, pair[0]), 0);
	vsock_mux_guest_absent(&m);
	vsock_mux_guest_absent(&m);
	assert_int_equal(read(far_end[0], &c, 1), 0);
	assert_int_equal(m.table.n_used, 2);
	for (int i = 0; i < 2; i++) {
		assert_true(output(&got));
		assert_int_equal(got.op, got.dst_port == 1000 ? VSOCK_OP_RST : VSOCK_OP_REQUEST);
	}
	assert_false(output(&got));
	assert_int_equal(m.table.n_used, 1);
	close(pair[1]);
	finish();
}

/* A port that was used is used again at once: an old connection's packets are not the new one's. */
static void port_again(void **state)
{
	struct vsock_pkt p;

	begin();
	for (int i = 0; i < 20; i++) {
		p = pkt(VSOCK_OP_REQUEST, 1000, 7000);
		answer(&p, VSOCK_OP_RESPONSE);
		p = pkt(VSOCK_OP_SHUTDOWN, 1000, 7000);
		p.flags = VSOCK_SHUTDOWN_BOTH;
		answer(&p, VSOCK_OP_RST);
		p = pkt(VSOCK_OP_RW, 1000, 7000);
		answer(&p, VSOCK_OP_RST);
		assert_int_equal(m.table.n_used, 0);
	}
	finish();
}

/* A million ports, none of which anybody listens at: each is answered, nothing is kept. */
static void a_million_ports(void **state)
{
	struct vsock_pkt p, got;

	begin();
	dial_result = -ECONNREFUSED;
	for (uint32_t i = 0; i < 1000000; i++) {
		p = pkt(VSOCK_OP_REQUEST, i, 7000);
		input(&p);
		if (!output(&got) || got.op != VSOCK_OP_RST || got.dst_port != i)
			fail_msg("port %u", i);
	}
	assert_int_equal(m.table.n_used, 0);
	finish();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(strangers),
		cmocka_unit_test(refusals),
		cmocka_unit_test(places),
		cmocka_unit_test(resets_bound_themselves),
		cmocka_unit_test(guest_reset),
		cmocka_unit_test(guest_absent),
		cmocka_unit_test(port_again),
		cmocka_unit_test(a_million_ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
