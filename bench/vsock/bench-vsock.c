/*
 * What a byte and a round trip cost through uvms-vsockd, beside a plain socketpair between two
 * threads in the same run. One line of JSON on stdout.
 *
 * The fake front-end stands for the guest, so no virtual machine's own cost is in the numbers:
 * they are an upper bound for the device process and its host side.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake-frontend.h"
#include "unit.h"

#define BULK_BYTES  (256u << 20)
#define ROUND_TRIPS 20000
#define CHUNK       32768

static struct fake f;
static uint8_t chunk[65536];

/* The host program: reads to the end (sink), gives back what it gets (echo), or writes (source). */
static void *host_sink(void *arg)
{
	uint8_t buf[65536];
	int fd = *(int *)arg;

	while (read(fd, buf, sizeof buf) > 0)
		;
	return NULL;
}

static void *host_echo(void *arg)
{
	int fd = *(int *)arg;
	uint8_t c;

	while (read(fd, &c, 1) == 1 && write(fd, &c, 1) == 1)
		;
	return NULL;
}

static void *host_source(void *arg)
{
	uint8_t buf[CHUNK] = { 0 };
	int fd = *(int *)arg;

	for (size_t n = 0; n < BULK_BYTES; n += sizeof buf) {
		for (size_t k = 0; k < sizeof buf;) {
			ssize_t w = write(fd, buf + k, sizeof buf - k);

			if (w <= 0)
				return NULL;
			k += (size_t)w;
		}
	}
	shutdown(fd, SHUT_WR);
	return NULL;
}

/* One connection of the guest to PORT; returns the host program's socket. */
static int connection(uint32_t guest_port, uint32_t port)
{
	int l = fake_listen(&f, port, 4), fd;
	struct vsock_pkt p = fake_pkt(VSOCK_OP_REQUEST, guest_port, port);

	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, guest_port, NULL);
	fd = accept(l, NULL, NULL);
	fd >= 0 ? (void)close(l) : abort();
	return fd;
}

/* The guest closes; whatever else is told before the RST is passed over. */
static void guest_closes(uint32_t guest_port, uint32_t port)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_SHUTDOWN, guest_port, port);

	p.flags = VSOCK_SHUTDOWN_BOTH;
	fake_tx(&f, &p, NULL, 0);
	do
		assert_true(fake_rx(&f, &p, NULL, 5000));
	while (p.op != VSOCK_OP_RST);
}

static double vsock_to_host(void)
{
	int fd = connection(1, 7001);
	uint64_t start = fake_now_usec(), sent = 0;
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 1, 7001), in;
	uint32_t told = 0;
	pthread_t t;

	pthread_create(&t, NULL, host_sink, &fd);
	for (;;) {
		uint32_t room = 65536 - ((uint32_t)sent - told);

		p.len = sent < BULK_BYTES ? (room < CHUNK ? room : CHUNK) : 0;
		if (p.len > 0)
			fake_tx(&f, &p, chunk, p.len);
		sent += p.len;
		if (sent >= BULK_BYTES && (uint32_t)sent - told < 16384)
			break; /* less than a step of credit: it is not told */
		if (fake_rx(&f, &in, NULL, p.len > 0 ? 0 : 1000))
			told = in.fwd_cnt;
	}
	start = fake_now_usec() - start;
	guest_closes(1, 7001);
	pthread_join(t, NULL);
	close(fd);
	return (double)BULK_BYTES * 1e6 / (double)start;
}

static double vsock_to_guest(void)
{
	int fd = connection(2, 7002);
	uint64_t start = fake_now_usec();
	struct vsock_pkt p, credit = fake_pkt(VSOCK_OP_CREDIT_UPDATE, 2, 7002);
	uint32_t got = 0, told = 0;
	pthread_t t;

	pthread_create(&t, NULL, host_source, &fd);
	while (got < BULK_BYTES && fake_rx(&f, &p, chunk, 5000)) {
		got += p.len;
		if (got - told >= 65536) {
			told = credit.fwd_cnt = got;
			fake_tx(&f, &credit, NULL, 0);
		}
	}
	start = fake_now_usec() - start;
	pthread_join(t, NULL);
	guest_closes(2, 7002);
	close(fd);
	return (double)got * 1e6 / (double)start;
}

static double vsock_round_trips(void)
{
	int fd = connection(3, 7003);
	uint64_t start = fake_now_usec();
	pthread_t t;

	pthread_create(&t, NULL, host_echo, &fd);
	for (uint32_t i = 0; i < ROUND_TRIPS; i++) {
		struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 3, 7003);

		p.len = 1;
		p.fwd_cnt = i;
		fake_tx(&f, &p, "x", 1);
		fake_expect(&f, VSOCK_OP_RW, 3, chunk);
	}
	start = fake_now_usec() - start;
	shutdown(fd, SHUT_RDWR);
	pthread_join(t, NULL);
	close(fd);
	return ROUND_TRIPS * 1e6 / (double)start;
}

static double plain_bytes(void)
{
	uint64_t start = fake_now_usec();
	int pair[2];
	pthread_t t;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		abort();
	pthread_create(&t, NULL, host_source, &pair[1]);
	while (read(pair[0], chunk, sizeof chunk) > 0)
		;
	pthread_join(t, NULL);
	close(pair[0]);
	close(pair[1]);
	return (double)BULK_BYTES * 1e6 / (double)(fake_now_usec() - start);
}

static double plain_round_trips(void)
{
	uint64_t start = fake_now_usec();
	int pair[2];
	pthread_t t;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		abort();
	pthread_create(&t, NULL, host_echo, &pair[1]);
	for (int i = 0; i < ROUND_TRIPS; i++) {
		if (write(pair[0], "x", 1) != 1 || read(pair[0], chunk, 1) != 1)
			abort();
	}
	start = fake_now_usec() - start;
	shutdown(pair[0], SHUT_RDWR);
	pthread_join(t, NULL);
	close(pair[0]);
	close(pair[1]);
	return ROUND_TRIPS * 1e6 / (double)start;
}

static void bench(void **state)
{
	fake_setup(&f);
	printf("{\"vsock_to_host_bytes_per_s\":%.0f,", vsock_to_host());
	printf("\"vsock_to_guest_bytes_per_s\":%.0f,", vsock_to_guest());
	printf("\"vsock_round_trips_per_s\":%.0f,", vsock_round_trips());
	printf("\"socketpair_bytes_per_s\":%.0f,", plain_bytes());
	printf("\"socketpair_round_trips_per_s\":%.0f}\n", plain_round_trips());
	fflush(stdout);
	fake_stop(&f);
}

/* the fake front-end fails a cmocka test when it cannot go on, so this is one */
int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bench) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
