#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"
#include "vsock-conn.h"

static struct loop loop;
static uint8_t memory[VSOCK_BUF_BYTES];
static struct vsock_conn c;
static int far_end, ended;

static void on_ready(struct vsock_conn *conn)
{
}

static void on_ended(struct vsock_conn *conn)
{
	ended++;
}

static const struct vsock_conn_hooks hooks = { on_ready, on_ended };
static const struct vsock_key key = { 2, 7000, 1000, VSOCK_TYPE_STREAM };

static bool output(struct vsock_pkt *p)
{
	static uint8_t buf[4096];
	struct iovec iov = { buf, sizeof buf };

	return vsock_conn_output(&c, p, &iov, 1, sizeof buf);
}

static void input(uint16_t op, uint32_t flags, size_t len)
{
	static uint8_t data[VSOCK_BUF_BYTES + 1];
	struct iovec iov = { data, len };
	const struct vsock_pkt p = {
		.op = op, .flags = flags, .len = (uint32_t)len, .buf_alloc = 65536
	};

	vsock_conn_input(&c, &p, &iov, len > 0);
}

/* Brings C into STATE with nothing owed, or only what the state is for. */
static void bring(enum vsock_conn_state state)
{
	const struct vsock_pkt request = { .op = VSOCK_OP_REQUEST, .buf_alloc = 65536 };
	struct vsock_pkt p;
	int pair[2];

	ended = 0;
	assert_int_equal(loop_init(&loop), 0);
	vsock_conn_init(&c, &loop, &hooks, NULL, memory);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	far_end = pair[1];
	if (state == VSOCK_REQUESTED) {
		assert_int_equal(vsock_conn_call(&c, &key, pair[0]), 0);
		assert_true(output(&p));
		assert_int_equal(p.op, VSOCK_OP_REQUEST);
		return;
	}
	assert_int_equal(vsock_conn_accept(&c, &key, &request, pair[0]), 0);
	assert_true(output(&p));
	assert_int_equal(p.op, VSOCK_OP_RESPONSE);
	if (state == VSOCK_DRAINING) {
		while (ring_used(&c.ring) == 0)
			input(VSOCK_OP_RW, 0, 16384);
		input(VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH, 0);
	} else if (state == VSOCK_DEAD) {
		input(VSOCK_OP_INVALID, 0, 0);
	}
	assert_int_equal(c.state, state);
}

static void leave(void)
{
	if (c.state != VSOCK_FREE)
		vsock_conn_drop(&c);
	assert_int_equal(ended, 1);
	close(far_end);
	loop_finish(&loop);
}

#define F VSOCK_FREE
#define R VSOCK_REQUESTED
#define O VSOCK_OPEN
#define G VSOCK_DRAINING
#define D VSOCK_DEAD

/* Every cell: the state that follows. */
static void every_state_and_operation(void **state)
{
	static const enum vsock_conn_state after[VSOCK_CONN_STATES][VSOCK_OP_END] = {
		/* INVALID REQUEST RESPONSE RST SHUTDOWN RW CREDIT_UPDATE CREDIT_REQUEST */
		[R] = { D, D, O, F, D, D, D, D },
		[O] = { D, D, D, F, D, O, O, O }, /* both shut, ring empty: only the RST is left */
		[G] = { G, D, G, G, G, G, G, G },
		[D] = { D, D, D, F, D, D, D, D },
	};

	for (enum vsock_conn_state s = R; s < VSOCK_CONN_STATES; s++) {
		for (uint16_t op = 0; op < VSOCK_OP_END; op++) {
			bring(s);
			input(op, VSOCK_SHUTDOWN_BOTH, 0);
			if (c.state != after[s][op])
				fail_msg("state %d, %s: %d", s, vsock_wire_op_name(op), c.state);
			leave();
		}
	}
}

static void dead_says_rst_and_ends(void **state)
{
	struct vsock_pkt p;

	bring(VSOCK_DEAD);
	assert_true(output(&p));
	assert_int_equal(p.op, VSOCK_OP_RST);
	assert_int_equal(c.state, VSOCK_FREE);
	leave();
}

/* A host program that never reads holds its slot for VSOCK_LINGER_USEC and no longer. */
static void draining_has_an_end(void **state)
{
	for (int told = 0; told < 2; told++) {
		struct vsock_pkt p;
		uint64_t now;

		bring(VSOCK_DRAINING);
		now = loop_now_usec();
		assert_in_range(c.timer.at_usec, now + VSOCK_LINGER_USEC - 1000000,
			now + VSOCK_LINGER_USEC);
		if (told) { /* the guest has its RST: nothing is left to say */
			assert_true(output(&p));
			assert_int_equal(p.op, VSOCK_OP_RST);
			assert_int_equal(c.state, VSOCK_DRAINING);
		}
		c.timer.fn(&c.timer);
		assert_int_equal(c.state, told ? VSOCK_FREE : VSOCK_DEAD);
		assert_int_equal(c.fd, -EBADF);
		leave();
	}
}

/* The host reads everything in time: no deadline stays behind. */
static void drained_has_no_timer(void **state)
{
	static uint8_t buf[VSOCK_BUF_BYTES];

	bring(VSOCK_DRAINING);
	while (c.state == VSOCK_DRAINING) {
		assert_true(read(far_end, buf, sizeof buf) > 0);
		c.source.fn(&c.source, EPOLLOUT);
	}
	assert_int_equal(c.state, VSOCK_DEAD);
	assert_true(list_empty(&c.timer.link));
	leave();
}

/* A ring that is full to the credit, to the byte; one more is too much. */
static void credit_to_the_byte(void **state)
{
	uint32_t left;

	bring(VSOCK_OPEN);
	while (ring_used(&c.ring) == 0)
		input(VSOCK_OP_RW, 0, 4096);
	left = VSOCK_BUF_BYTES - ring_used(&c.ring);
	input(VSOCK_OP_RW, 0, left);
	assert_int_equal(c.state, VSOCK_OPEN);
	assert_int_equal(ring_room(&c.ring), 0);
	input(VSOCK_OP_RW, 0, 0);
	assert_int_equal(c.state, VSOCK_OPEN);
	input(VSOCK_OP_RW, 0, 1);
	assert_int_equal(c.state, VSOCK_DEAD);
	leave();
}

/* Counters run over 2^32 in both directions. */
static void counters_wrap(void **state)
{
	struct vsock_pkt p;

	bring(VSOCK_OPEN);
	c.tx_cnt = c.guest_fwd = UINT32_MAX - 2;
	c.rx_cnt = c.fwd_cnt = c.fwd_told = UINT32_MAX - 2;
	assert_int_equal(write(far_end, "abcdef", 6), 6);
	c.readable = true;
	assert_true(vsock_conn_is_ready(&c));
	assert_true(output(&p));
	assert_int_equal(p.op, VSOCK_OP_RW);
	assert_int_equal(p.len, 6);
	c.guest_fwd = c.tx_cnt;
	input(VSOCK_OP_RW, 0, 10);
	assert_int_equal(c.state, VSOCK_OPEN);
	assert_int_equal(c.fwd_cnt, 7);
	leave();
}

/* An error that is no end of the host's: both directions end, and the host sees it. */
static void write_error_ends_both_ways(void **state)
{
	struct vsock_pkt p;
	char b;
	int other;

	bring(VSOCK_OPEN);
	other = open("/dev/null", O_RDWR | O_CLOEXEC);
	assert_int_equal(dup2(other, c.fd), c.fd);
	input(VSOCK_OP_RW, 0, 10);
	assert_int_equal(c.state, VSOCK_DEAD);
	assert_int_equal(read(far_end, &b, 1), 0);
	assert_true(output(&p));
	assert_int_equal(p.op, VSOCK_OP_RST);
	assert_int_equal(ended, 1);
	close(other);
	close(far_end);
	loop_finish(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_state_and_operation),
		cmocka_unit_test(dead_says_rst_and_ends),
		cmocka_unit_test(draining_has_an_end),
		cmocka_unit_test(drained_has_no_timer),
		cmocka_unit_test(credit_to_the_byte),
		cmocka_unit_test(counters_wrap),
		cmocka_unit_test(write_error_ends_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
