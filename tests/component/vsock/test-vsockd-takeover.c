/* uvms-vsockd killed at many points; its successor has the session, and no connection is left hanging. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fake-frontend.h"
#include "unit.h"
#include "vsock-table.h"
#include "vu-state-wire.h"

#define LOST        3
#define HANDED_OVER 4

static struct fake f;

static int setup(void **state)
{
	fake_keeps = true;
	return 0;
}

/* A new call of the host and one of the guest are served. */
static void serves(uint32_t guest_port)
{
	struct vsock_pkt p, q;
	char line[32];
	int fd = fake_connect(&f);

	assert_int_equal(write(fd, "CONNECT 77\n", 11), 11);
	p = fake_expect(&f, VSOCK_OP_REQUEST, 77, NULL);
	q = fake_pkt(VSOCK_OP_RESPONSE, 77, p.src_port);
	fake_tx(&f, &q, NULL, 0);
	assert_true(read(fd, line, sizeof line) > 3);
	assert_memory_equal(line, "OK ", 3);
	q = fake_pkt(VSOCK_OP_RST, 77, p.src_port);
	fake_tx(&f, &q, NULL, 0);
	assert_int_equal(read(fd, line, sizeof line), 0);
	close(fd);
	q = fake_pkt(VSOCK_OP_REQUEST, guest_port, 7000);
	fake_tx(&f, &q, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, guest_port, NULL);
}

static int guest_calls(int listener, uint32_t guest_port)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_REQUEST, guest_port, 7000);

	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, guest_port, NULL);
	return accept(listener, NULL, NULL);
}

/* Connections in every state: each is reset, before anything else is said. */
static void all_are_reset(void **state)
{
	struct vsock_pkt p;
	int l, open_fd, half, asked, seen = 0;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 64);
	open_fd = guest_calls(l, 2001);
	half = guest_calls(l, 2002);
	p = fake_pkt(VSOCK_OP_SHUTDOWN, 2002, 7000);
	p.flags = 1;
	fake_tx(&f, &p, NULL, 0);
	asked = fake_connect(&f);
	assert_int_equal(write(asked, "CONNECT 2003\n", 13), 13);
	fake_expect(&f, VSOCK_OP_REQUEST, 2003, NULL);
	assert_int_equal(fake_replace(&f), -SIGKILL);
	while (seen != 7) {
		assert_true(fake_rx(&f, &p, NULL, 2000));
		assert_int_equal(p.op, VSOCK_OP_RST);
		assert_in_range(p.dst_port, 2001, 2003);
		seen |= 1 << (p.dst_port - 2001);
	}
	serves(2010);
	close(open_fd);
	close(half);
	close(asked);
	close(l);
	fake_stop(&f);
}

/* Killed after each message of the handshake; then it goes on as if nothing had been. */
static void in_the_handshake(void **state)
{
	for (unsigned n = 0; n < 16; n++) {
		uint64_t features;
		int l;

		fake_start(&f);
		fake_message(&f, VU_SET_OWNER, VU_FLAG_VERSION, NULL, 0, NULL, 0);
		for (unsigned i = 0; i <= n % 4; i++)
			fake_replace(&f);
		features = fake_get_u64(&f, VU_GET_FEATURES);
		assert_int_equal(features & FAKE_FEATURES, FAKE_FEATURES);
		fake_replace(&f); /* in the moment of its reply */
		fake_set_u64(&f, VU_SET_FEATURES, FAKE_FEATURES);
		if (n & 1)
			fake_replace(&f);
		fake_set_memory(&f);
		if (n & 2)
			fake_replace(&f);
		fake_setup_queue(&f, 0);
		if (n & 4)
			fake_replace(&f);
		fake_setup_queue(&f, 1);
		if (n & 8)
			fake_replace(&f);
		fake_get_u64(&f, VU_GET_QUEUE_NUM);
		fake_post_rx(&f, FAKE_NUM);
		l = fake_listen(&f, 7000, 4);
		serves(3000);
		close(l);
		fake_stop(&f);
	}
}

/* Killed around a request: there is always one reply, and never a second. */
static void around_an_answer(void **state)
{
	srandom(4);
	fake_setup(&f);
	for (int i = 0; i < 200; i++) {
		uint64_t n;

		fake_message(&f, VU_GET_QUEUE_NUM, VU_FLAG_VERSION, NULL, 0, NULL, 0);
		usleep((useconds_t)(random() % (i % 2 ? 100 : 8000)));
		if (i & 2)
			fake_reply(&f, VU_GET_QUEUE_NUM, &n, sizeof n);
		assert_int_equal(fake_replace(&f), -SIGKILL);
		if (!(i & 2))
			fake_reply(&f, VU_GET_QUEUE_NUM, &n, sizeof n);
	}
	fake_get_u64(&f, VU_GET_FEATURES);
	fake_stop(&f);
}

/* A guest that sends and receives without a pause, and a kill at any moment of it, again and again. */
static void under_load(void **state)
{
	static uint8_t bytes[32768];
	int l;

	srandom(1);
	fake_setup(&f);
	l = fake_listen(&f, 7000, 1024);
	for (uint32_t i = 0; i < 100; i++) {
		uint32_t port = 10000 + i;
		struct vsock_pkt p;
		int fd = guest_calls(l, port);

		p = fake_pkt(VSOCK_OP_RW, port, 7000);
		p.len = sizeof bytes;
		fake_tx(&f, &p, bytes, sizeof bytes);
		assert_true(send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0);
		usleep((useconds_t)(random() % 1500));
		fake_replace(&f);
		do
			assert_true(fake_rx(&f, &p, NULL, 2000));
		while (p.op != VSOCK_OP_RST || p.dst_port != port);
		close(fd);
	}
	serves(9999);
	close(l);
	fake_stop(&f);
}

/* A successor that is killed at its work leaves each connection to the next one. */
static void successors_die_too(void **state)
{
	enum { CONNS = 200 };
	bool seen[CONNS] = { false };
	struct vsock_pkt p;
	int l, fds[CONNS], n = 0;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 1024);
	for (uint32_t i = 0; i < CONNS; i++)
		fds[i] = guest_calls(l, 20000 + i);
	srandom(2);
	for (int i = 0; i < 40; i++) {
		fake_replace(&f);
		usleep((useconds_t)(random() % 8000));
	}
	while (n < CONNS) {
		assert_true(fake_rx(&f, &p, NULL, 2000));
		assert_int_equal(p.op, VSOCK_OP_RST);
		assert_in_range(p.dst_port, 20000, 20000 + CONNS - 1);
		n += !seen[p.dst_port - 20000];
		seen[p.dst_port - 20000] = true;
	}
	while (fake_rx(&f, &p, NULL, 50))
		assert_int_equal(p.op, VSOCK_OP_RST);
	serves(9999);
	for (int i = 0; i < CONNS; i++)
		close(fds[i]);
	close(l);
	fake_stop(&f);
}

static uint8_t *map_page(void)
{
	uint8_t *page =
		mmap(NULL, VU_STATE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f.state_fd, 0);

	assert_true(page != MAP_FAILED);
	return page;
}

/* What cannot be taken over is said by status 3, whatever it is. */
static void lost_is_said(void **state)
{
	for (int what = 0; what < 5; what++) {
		uint8_t *page;

		fake_setup(&f);
		page = map_page();
		usleep(20000); /* it has done all that it was told */
		if (what == 0)
			page[4] = 1; /* busy */
		if (what == 1)
			page[0] ^= 1;
		if (what == 2)
			memset(page + 1024, 0xff, 2048);
		if (what == 3)
			fake_message(&f, VU_GET_VRING_BASE, VU_FLAG_VERSION, "\0\0\0", 3, NULL, 0);
		if (what == 4)
			assert_int_equal(send(f.sock, "\1\0\0\0\1", 5, 0), 5);
		usleep(20000);
		if (what == 3) { /* a fault of the front-end is no loss: the message is refused */
			assert_int_equal(fake_wait_exit(&f), 1);
		} else {
			fake_replace(&f);
			assert_int_equal(fake_wait_exit(&f), LOST);
		}
		munmap(page, VU_STATE_PAGE_BYTES);
	}
}

static void missing_descriptors(void **state)
{
	for (size_t i = 0; i < 5; i++) {
		size_t k = 0;

		fake_setup(&f);
		fake_replace(&f); /* so that all are here */
		usleep(20000);
		for (size_t s = 0; s < KEEPER_SLOTS; s++) {
			if (f.slots[s] < 0 || k++ != i)
				continue;
			close(f.slots[s]);
			f.slots[s] = -EBADF;
		}
		assert_int_equal(k, 5);
		fake_replace(&f);
		assert_int_equal(fake_wait_exit(&f), LOST);
	}
}

/* A table of nonsense: resets of nonsense, and then all goes on. */
static void hostile_table(void **state)
{
	struct vsock_table_head *head;
	struct vsock_pkt p;
	int l;

	fake_setup(&f);
	head = mmap(NULL, VSOCK_TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, f.table_fd, 0);
	assert_true(head != MAP_FAILED);
	srandom(3);
	for (int i = 0; i < 5; i++) {
		uint8_t *bytes = (uint8_t *)(head + 1);

		for (size_t k = 0; k < VSOCK_TABLE_BYTES - sizeof *head; k++)
			bytes[k] = (uint8_t)random();
		if (i == 3)
			head->magic ^= 1;
		if (i == 4)
			head->n_slots = UINT32_MAX;
		fake_replace(&f);
		while (fake_rx(&f, &p, NULL, 200))
			assert_int_equal(p.op, VSOCK_OP_RST);
	}
	l = fake_listen(&f, 7000, 4);
	serves(4000);
	close(l);
	munmap(head, VSOCK_TABLE_BYTES);
	fake_stop(&f);
}

/* The guest is reset under the successor: as under the first. */
static void reset_after_it(void **state)
{
	int l;

	fake_setup(&f);
	fake_replace(&f);
	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		uint32_t ask[2] = { i, 0 }, got[2];

		fake_message(&f, VU_GET_VRING_BASE, VU_FLAG_VERSION, ask, sizeof ask, NULL, 0);
		fake_reply(&f, VU_GET_VRING_BASE, got, sizeof got);
		assert_int_equal(got[1], fake_used(&f, i));
	}
	fake_rings_clear(&f);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		fake_setup_queue(&f, i);
	fake_get_u64(&f, VU_GET_QUEUE_NUM);
	fake_post_rx(&f, FAKE_NUM);
	l = fake_listen(&f, 7000, 4);
	serves(5000);
	close(l);
	fake_stop(&f);
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 7 + i / 251);
}

/* Bytes of the guest for its PORT, as many as its credit allows; what was told back is in *TOLD. */
static size_t guest_sends(uint32_t port, size_t sent, size_t total, uint32_t *told)
{
	static uint8_t bytes[16384];
	size_t n = total - sent, room = 65536 - (uint32_t)(sent - *told);
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, port, 7000);

	n = n < room ? n : room;
	n = n < sizeof bytes ? n : sizeof bytes;
	for (size_t i = 0; i < n; i++)
		bytes[i] = pattern(sent + i);
	p.len = (uint32_t)n;
	if (n > 0)
		fake_tx(&f, &p, bytes, n);
	while (fake_rx(&f, &p, NULL, room == 0 ? 1 : 0)) {
		assert_int_equal(p.op, VSOCK_OP_CREDIT_UPDATE);
		*told = p.fwd_cnt;
	}
	return n;
}

/* A stream from the guest goes from one process to the next, twenty times: no byte is lost, and no reset comes. */
static void handed_over_under_load(void **state)
{
	static uint8_t bytes[65536];
	size_t sent = 0, got = 0, total = 8u << 20;
	uint32_t told = 0;
	int l, fd, left = 20;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 4);
	fd = guest_calls(l, 1000);
	while (got < total) {
		ssize_t r;

		sent += guest_sends(1000, sent, total, &told);
		if (sent * 21 / total > (size_t)(20 - left) && left-- > 0)
			assert_int_equal(fake_hand_over(&f, NULL), HANDED_OVER);
		while ((r = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
			for (ssize_t i = 0; i < r; i++)
				assert_int_equal(bytes[i], pattern(got + (size_t)i));
			got += (size_t)r;
		}
		assert_true(r < 0);
	}
	assert_true(left <= 0);
	serves(2000);
	close(fd);
	close(l);
	fake_stop(&f);
}

/* Every kind of connection is the successor's: a half-closed one, a call without answer, a caller without a line. */
static void handed_over_in_every_state(void **state)
{
	struct vsock_pkt p, q;
	char line[32];
	int l, half, asked, caller;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 64);
	half = guest_calls(l, 2002);
	q = fake_pkt(VSOCK_OP_SHUTDOWN, 2002, 7000);
	q.flags = VSOCK_SHUTDOWN_SEND;
	fake_tx(&f, &q, NULL, 0);
	assert_int_equal(read(half, line, sizeof line), 0);
	asked = fake_connect(&f);
	assert_int_equal(write(asked, "CONNECT 2003\n", 13), 13);
	p = fake_expect(&f, VSOCK_OP_REQUEST, 2003, NULL);
	caller = fake_connect(&f);
	assert_int_equal(write(caller, "CONNECT 2004", 12), 12);
	usleep(50000);
	assert_int_equal(fake_hand_over(&f, NULL), HANDED_OVER);
	assert_int_equal(write(half, "last", 4), 4);
	fake_expect(&f, VSOCK_OP_RW, 2002, NULL);
	q = fake_pkt(VSOCK_OP_RESPONSE, 2003, p.src_port);
	fake_tx(&f, &q, NULL, 0);
	assert_true(read(asked, line, sizeof line) > 3);
	assert_memory_equal(line, "OK ", 3);
	assert_int_equal(write(caller, "\n", 1), 1);
	fake_expect(&f, VSOCK_OP_REQUEST, 2004, NULL);
	close(half);
	fake_expect(&f, VSOCK_OP_SHUTDOWN, 2002, NULL);
	close(asked);
	close(caller);
	close(l);
	fake_stop(&f);
}

/* A successor that dies with all in its hands: the next one resets them. */
static void heir_dies(void **state)
{
	pid_t next;
	int l, fd;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 4);
	fd = guest_calls(l, 1000);
	assert_int_equal(fake_hand_over(&f, &next), HANDED_OVER);
	assert_int_equal(fake_replace(&f), -SIGKILL);
	fake_expect(&f, VSOCK_OP_RST, 1000, NULL);
	serves(2000);
	close(fd);
	close(l);
	fake_stop(&f);
}

/* One that cannot hear its keeper any more makes room for one that can. */
static void deaf_one_ends(void **state)
{
	int l;

	fake_setup(&f);
	assert_int_equal(send(f.keeper_fd, "???", 3, 0), 3);
	assert_int_equal(fake_reap(&f), 1);
	fake_revive(&f);
	l = fake_listen(&f, 7000, 4);
	serves(2000);
	close(l);
	fake_stop(&f);
}

/* Killed with a word of the keeper unread: what it had handed over by then is not lost. */
static void unread_word(void **state)
{
	uint8_t ping[KEEPER_WIRE_BYTES];
	int l;

	fake_setup(&f);
	kill(f.pid, SIGSTOP);
	keeper_wire_put(ping, &(struct keeper_msg){ KEEPER_PING, 0, 1 });
	assert_int_equal(send(f.keeper_fd, ping, sizeof ping, 0), sizeof ping);
	fake_replace(&f);
	l = fake_listen(&f, 7000, 4);
	serves(2000);
	close(l);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_are_reset),
		cmocka_unit_test(in_the_handshake),
		cmocka_unit_test(around_an_answer),
		cmocka_unit_test(under_load),
		cmocka_unit_test(successors_die_too),
		cmocka_unit_test(lost_is_said),
		cmocka_unit_test(missing_descriptors),
		cmocka_unit_test(hostile_table),
		cmocka_unit_test(reset_after_it),
		cmocka_unit_test(handed_over_under_load),
		cmocka_unit_test(handed_over_in_every_state),
		cmocka_unit_test(heir_dies),
		cmocka_unit_test(deaf_one_ends),
		cmocka_unit_test(unread_word),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
