/* Good traffic through a real uvms-vsockd. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake-frontend.h"
#include "fd.h"
#include "sandbox.h"
#include "unit.h"
#include "vsock-mux.h"

static struct fake f;

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 2654435761u >> 13);
}

static int wait_accept(int l)
{
	struct pollfd p = { .fd = l, .events = POLLIN };
	int fd;

	assert_int_equal(poll(&p, 1, 3000), 1);
	fd = accept4(l, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void read_exactly(int fd, void *buf, size_t n)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	while (n > 0) {
		ssize_t r;

		assert_int_equal(poll(&p, 1, 5000), 1);
		r = read(fd, buf, n);
		assert_true(r > 0);
		buf = (char *)buf + r;
		n -= (size_t)r;
	}
}

static void expect_eof(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char c;

	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(fd, &c, 1), 0);
}

/* The guest calls host PORT from GUEST_PORT; returns the host program's socket. */
static int guest_calls(int l, uint32_t guest_port, uint32_t port)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_REQUEST, guest_port, port);

	fake_tx(&f, &p, NULL, 0);
	p = fake_expect(&f, VSOCK_OP_RESPONSE, guest_port, NULL);
	assert_int_equal(p.buf_alloc, VSOCK_BUF_BYTES);
	assert_int_equal(p.src_cid, VSOCK_CID_HOST);
	return wait_accept(l);
}

/* A host program calls guest PORT; returns its socket, the host's port in *RET. */
static int host_calls(uint32_t port, const char *early, uint32_t *ret)
{
	int fd = fake_connect(&f), n;
	struct vsock_pkt p;
	char text[64], want[64];

	n = snprintf(text, sizeof text, "CONNECT %u\n%s", port, early);
	assert_int_equal(write(fd, text, (size_t)n), n);
	p = fake_expect(&f, VSOCK_OP_REQUEST, port, NULL);
	*ret = p.src_port;
	p = fake_pkt(VSOCK_OP_RESPONSE, port, *ret);
	fake_tx(&f, &p, NULL, 0);
	n = snprintf(want, sizeof want, "OK %u\n", *ret);
	read_exactly(fd, text, (size_t)n);
	assert_memory_equal(text, want, n);
	return fd;
}

static void guest_closes(uint32_t guest_port, uint32_t port)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_SHUTDOWN, guest_port, port);

	p.flags = VSOCK_SHUTDOWN_BOTH;
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, guest_port, NULL);
}

#define BULK (3u << 20)

/* Guest → host with credit kept, the host reading in between; then the end of that direction. */
static void bulk_to_host(void **state)
{
	int l, fd;
	struct vsock_pkt p, in;
	uint32_t told = 0;
	size_t sent = 0, got = 0;
	static uint8_t buf[65536];

	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	fd = guest_calls(l, 1000, 7000);
	while (got < BULK) {
		size_t n = BULK - sent, room = VSOCK_BUF_BYTES - (uint32_t)(sent - told);

		n = n < room ? n : room;
		n = n < 20000 ? n : 20000;
		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(sent + i);
		p = fake_pkt(VSOCK_OP_RW, 1000, 7000);
		p.len = (uint32_t)n;
		if (n > 0)
			fake_tx(&f, &p, buf, n);
		sent += n;
		for (ssize_t r; (r = recv(fd, buf, sizeof buf, MSG_DONTWAIT)) > 0; got += (size_t)r)
			for (ssize_t i = 0; i < r; i++)
				assert_int_equal(buf[i], pattern(got + (size_t)i));
		while (fake_rx(&f, &in, NULL, room == 0 ? 1 : 0)) {
			assert_int_equal(in.op, VSOCK_OP_CREDIT_UPDATE);
			told = in.fwd_cnt;
		}
	}
	p = fake_pkt(VSOCK_OP_SHUTDOWN, 1000, 7000);
	p.flags = VSOCK_SHUTDOWN_SEND;
	fake_tx(&f, &p, NULL, 0);
	expect_eof(fd);
	/* the other direction still works */
	assert_int_equal(write(fd, "back", 4), 4);
	fake_expect(&f, VSOCK_OP_RW, 1000, buf);
	assert_memory_equal(buf, "back", 4);
	close(fd);
	in = fake_expect(&f, VSOCK_OP_SHUTDOWN, 1000, NULL);
	guest_closes(1000, 7000);
	close(l);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* Host → guest: never more than the guest's credit, split to its 4 KiB buffers, then the end. */
static void bulk_to_guest(void **state)
{
	static uint8_t data[BULK], buf[FAKE_RX_BYTES];
	size_t got = 0, put = 0;
	uint32_t port, flying_max = 0;
	struct vsock_pkt p;
	int fd;

	for (size_t i = 0; i < BULK; i++)
		data[i] = pattern(i);
	fake_setup(&f);
	fd = host_calls(5000, "", &port);
	fd_set_nonblock(fd, 1);
	while (got < BULK) {
		ssize_t w = put < BULK ? write(fd, data + put, BULK - put) : 0;

		put += w > 0 ? (size_t)w : 0;
		while (fake_rx(&f, &p, buf, 20)) {
			if (p.op != VSOCK_OP_RW)
				continue;
			assert_memory_equal(buf, data + got, p.len);
			got += p.len;
			flying_max += p.len;
			assert_true(flying_max <= 262144);
		}
		p = fake_pkt(VSOCK_OP_CREDIT_UPDATE, 5000, port);
		p.fwd_cnt = (uint32_t)got;
		flying_max = 0;
		fake_tx(&f, &p, NULL, 0);
	}
	shutdown(fd, SHUT_WR);
	p = fake_expect(&f, VSOCK_OP_SHUTDOWN, 5000, NULL);
	assert_int_equal(p.flags, VSOCK_SHUTDOWN_SEND);
	/* half closed: the guest may still talk */
	p = fake_pkt(VSOCK_OP_RW, 5000, port);
	p.len = 3;
	fake_tx(&f, &p, "bye", 3);
	read_exactly(fd, buf, 3);
	guest_closes(5000, port);
	expect_eof(fd);
	close(fd);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

static void early_bytes_are_kept(void **state)
{
	char buf[FAKE_RX_BYTES];
	uint32_t port;
	int fd;

	fake_setup(&f);
	fd = host_calls(5000, "early", &port);
	assert_int_equal(fake_expect(&f, VSOCK_OP_RW, 5000, buf).len, 5);
	assert_memory_equal(buf, "early", 5);
	close(fd);
	assert_int_equal(fake_expect(&f, VSOCK_OP_SHUTDOWN, 5000, NULL).flags, VSOCK_SHUTDOWN_BOTH);
	guest_closes(5000, port);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* A guest that says nothing to SHUTDOWN is reset after 2 s, one that never answers a call too. */
static void half_open_times_out(void **state)
{
	uint64_t start;
	uint32_t port;
	int fd, silent;

	fake_setup(&f);
	fd = host_calls(5000, "", &port);
	silent = fake_connect(&f);
	assert_int_equal(write(silent, "CONNECT 6000\n", 13), 13);
	fake_expect(&f, VSOCK_OP_REQUEST, 6000, NULL);
	close(fd);
	fake_expect(&f, VSOCK_OP_SHUTDOWN, 5000, NULL);
	start = fake_now_usec();
	fake_expect(&f, VSOCK_OP_RST, 6000, NULL);
	fake_expect(&f, VSOCK_OP_RST, 5000, NULL);
	assert_in_range(fake_now_usec() - start, 1800000, 2500000);
	expect_eof(silent);
	close(silent);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

#define MANY 200

static void many_connections(void **state)
{
	int l, fds[MANY];
	struct vsock_pkt p;
	char c;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	for (unsigned i = 0; i < MANY; i++)
		fds[i] = guest_calls(l, 1000 + i, 7000);
	for (unsigned i = 0; i < MANY; i++) {
		p = fake_pkt(VSOCK_OP_RW, 1000 + i, 7000);
		p.len = 1;
		c = (char)i;
		fake_tx(&f, &p, &c, 1);
	}
	for (unsigned i = 0; i < MANY; i++) {
		read_exactly(fds[i], &c, 1);
		assert_int_equal(c, (char)i);
		guest_closes(1000 + i, 7000);
		expect_eof(fds[i]);
		close(fds[i]);
	}
	close(l);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* The guest's share of the table, then one more: that one is refused, and nobody else. */
static void guest_fills_its_share(void **state)
{
	int l, home, fd, fds[VSOCK_CONNS_HOST], held[VSOCK_CONNS_MAX];
	uint32_t port, ports[VSOCK_CONNS_HOST];
	struct vsock_pkt p;
	char c;

	if (sandbox_want_fds(2 * VSOCK_CONNS_MAX) < 0)
		skip();
	fake_setup(&f);
	l = fake_listen(&f, 7000, 2048);
	home = fake_listen(&f, VSOCK_PORT_AGENT, 64);
	for (unsigned i = 0; i < VSOCK_CONNS_MAX - VSOCK_CONNS_HOST; i++)
		held[i] = guest_calls(l, 1000 + i, 7000);
	p = fake_pkt(VSOCK_OP_REQUEST, 99, 7000);
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, 99, NULL);
	/* the agent still calls home, and its places are not endless either */
	for (unsigned i = 0; i < VSOCK_CONNS_HOME; i++)
		fds[i] = guest_calls(home, 50000 + i, VSOCK_PORT_AGENT);
	p = fake_pkt(VSOCK_OP_REQUEST, 99, VSOCK_PORT_AGENT);
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, 99, NULL);
	for (unsigned i = 0; i < VSOCK_CONNS_HOME; i++) {
		guest_closes(50000 + i, VSOCK_PORT_AGENT);
		close(fds[i]);
	}
	/* the host gets through to the agent, up to the last place */
	for (unsigned i = 0; i < VSOCK_CONNS_HOST; i++)
		fds[i] = host_calls(VSOCK_PORT_AGENT, "", &ports[i]);
	fd = fake_connect(&f);
	assert_int_equal(write(fd, "CONNECT 5\n", 10), 10);
	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
	guest_closes(VSOCK_PORT_AGENT, ports[7]);
	expect_eof(fds[7]);
	close(host_calls(VSOCK_PORT_AGENT, "", &port));
	for (unsigned i = 0; i < VSOCK_CONNS_HOST; i++)
		close(fds[i]);
	for (unsigned i = 0; i < VSOCK_CONNS_MAX - VSOCK_CONNS_HOST; i++)
		close(held[i]);
	close(home);
	close(l);
	fake_stop(&f);
}

/* A host program that does not read stalls its own connection; the others go on. */
static void slow_reader_stalls_alone(void **state)
{
	static uint8_t buf[65536];
	int l, slow, quick;
	struct vsock_pkt p, in;
	uint32_t told = 0, sent = 0;
	char c;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	slow = guest_calls(l, 1000, 7000);
	quick = guest_calls(l, 1001, 7000);
	for (int idle = 0; idle < 3;) {
		uint32_t n = VSOCK_BUF_BYTES - (sent - told);

		p = fake_pkt(VSOCK_OP_RW, 1000, 7000);
		p.len = n;
		if (n > 0)
			fake_tx(&f, &p, buf, n);
		sent += n;
		idle++;
		while (fake_rx(&f, &in, NULL, 50)) {
			told = in.fwd_cnt;
			idle = 0;
		}
	}
	assert_int_equal(sent - told, VSOCK_BUF_BYTES);
	p = fake_pkt(VSOCK_OP_RW, 1001, 7000);
	p.len = 1;
	fake_tx(&f, &p, "q", 1);
	read_exactly(quick, &c, 1);
	/* it reads at last: all of it is there, and the credit comes back */
	for (uint32_t got = 0; got < sent; got += 4096)
		read_exactly(slow, buf, sent - got < 4096 ? sent - got : 4096);
	assert_true(fake_rx(&f, &in, NULL, 1000));
	assert_int_equal(in.op, VSOCK_OP_CREDIT_UPDATE);
	close(slow);
	close(quick);
	close(l);
	fake_stop(&f);
}

/* What the guest wrote before it closed still reaches a slow reader after the RST. */
static void close_after_write_loses_nothing(void **state)
{
	static uint8_t buf[60000];
	int l, fd, small = 4608;
	struct vsock_pkt p;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
	fd = guest_calls(l, 1000, 7000);
	for (int i = 0; i < 6; i++) { /* more than the socket takes */
		p = fake_pkt(VSOCK_OP_RW, 1000, 7000);
		p.len = i < 5 ? 40000 : 60000;
		fake_tx(&f, &p, buf, p.len);
		usleep(20000);
	}
	guest_closes(1000, 7000);
	read_exactly(fd, buf, 60000);
	for (int i = 0; i < 5; i++)
		read_exactly(fd, buf, 40000);
	expect_eof(fd);
	close(fd);
	close(l);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* A pause keeps the connections, a reset of the guest ends them; both on the same socket. */
static void pause_and_reset(void **state)
{
	uint32_t base[2][2], port;
	struct vsock_pkt p;
	char c;
	int fd;

	fake_setup(&f);
	fd = host_calls(5000, "", &port);
	for (unsigned i = 0; i < 2; i++) {
		fake_set_state(&f, VU_GET_VRING_BASE, i, 0);
		fake_reply(&f, VU_GET_VRING_BASE, base[i], 8);
	}
	for (unsigned i = 0; i < 2; i++) {
		uint64_t index = i;

		fake_set_state(&f, VU_SET_VRING_BASE, i, base[i][1]);
		fake_message(
			&f, VU_SET_VRING_KICK, VU_FLAG_VERSION, &index, 8, &f.rings[i].kick, 1);
	}
	p = fake_pkt(VSOCK_OP_RW, 5000, port);
	p.len = 1;
	fake_tx(&f, &p, "x", 1);
	read_exactly(fd, &c, 1);
	for (unsigned i = 0; i < 2; i++) {
		fake_set_state(&f, VU_GET_VRING_BASE, i, 0);
		fake_reply(&f, VU_GET_VRING_BASE, base[i], 8);
	}
	fake_rings_clear(&f);
	fake_set_u64(&f, VU_SET_FEATURES, FAKE_FEATURES);
	fake_set_memory(&f);
	for (unsigned i = 0; i < 2; i++)
		fake_setup_queue(&f, i);
	expect_eof(fd);
	close(fd);
	fake_post_rx(&f, FAKE_NUM);
	close(host_calls(5001, "", &port));
	fake_stop(&f);
}

/* The driver is gone for good: who calls then is told within the time for an answer. */
static void calls_to_a_stopped_guest(void **state)
{
	uint32_t base[2];
	uint64_t start;
	int fd;

	fake_setup(&f);
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		fake_set_state(&f, VU_GET_VRING_BASE, i, 0);
		fake_reply(&f, VU_GET_VRING_BASE, base, sizeof base);
	}
	fd = fake_connect(&f);
	start = fake_now_usec();
	assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
	expect_eof(fd);
	assert_in_range(fake_now_usec() - start, 1800000, 2500000);
	close(fd);
	fake_stop(&f);
}

/* A live connection is in the file, and goes from it at its end. */
static void table_is_kept(void **state)
{
	struct vsock_table_head *head;
	struct vsock_table_entry *e;
	uint32_t port;
	int fd;

	fake_setup(&f);
	fd = host_calls(5000, "", &port);
	head = mmap(NULL, VSOCK_TABLE_BYTES, PROT_READ, MAP_SHARED, f.table_fd, 0);
	assert_true(head != MAP_FAILED);
	e = (struct vsock_table_entry *)(head + 1);
	assert_int_equal(head->magic, VSOCK_TABLE_MAGIC);
	assert_int_equal(head->guest_cid, FAKE_CID);
	assert_int_equal(e->live, 1);
	assert_int_equal(e->guest_port, 5000);
	assert_int_equal(e->peer_port, port);
	guest_closes(5000, port);
	expect_eof(fd);
	close(fd);
	for (int i = 0; i < 1000 && e->live; i++)
		usleep(1000); /* it leaves the file at the end of the turn */
	assert_int_equal(e->live, 0);
	munmap(head, VSOCK_TABLE_BYTES);
	fake_stop(&f);
}

/* A listener that does not accept: the guest hears so at once, and nothing waits for it. */
static void full_backlog(void **state)
{
	struct vsock_pkt p;
	uint64_t start;
	int l;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 0);
	p = fake_pkt(VSOCK_OP_REQUEST, 1000, 7000);
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, 1000, NULL);
	start = fake_now_usec();
	p = fake_pkt(VSOCK_OP_REQUEST, 1001, 7000);
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, 1001, NULL);
	assert_in_range(fake_now_usec() - start, 0, 50000);
	close(l);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bulk_to_host),
		cmocka_unit_test(bulk_to_guest),
		cmocka_unit_test(early_bytes_are_kept),
		cmocka_unit_test(half_open_times_out),
		cmocka_unit_test(many_connections),
		cmocka_unit_test(guest_fills_its_share),
		cmocka_unit_test(slow_reader_stalls_alone),
		cmocka_unit_test(close_after_write_loses_nothing),
		cmocka_unit_test(pause_and_reset),
		cmocka_unit_test(calls_to_a_stopped_guest),
		cmocka_unit_test(table_is_kept),
		cmocka_unit_test(full_backlog),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
