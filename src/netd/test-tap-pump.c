#include "tap-pump.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "unit.h"

/* A pump in a thread, between a link (messages) and a stream. */
static struct tap_pump pump;
static int ends[2], link_end, stream_end, result;
static pthread_t thread;

static void *run(void *unused)
{
	result = tap_pump_run(&pump);
	return NULL;
}

static void begin(void)
{
	int link_pair[2], stream_pair[2];

	assert_int_equal(
		socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, link_pair),
		0);
	assert_int_equal(
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, stream_pair), 0);
	ends[0] = link_pair[0];
	ends[1] = stream_pair[0];
	link_end = link_pair[1];
	stream_end = stream_pair[1];
	assert_int_equal(tap_pump_init(&pump, ends[0], ends[1]), 0);
	assert_int_equal(pthread_create(&thread, NULL, run, NULL), 0);
}

static int end(void)
{
	if (stream_end >= 0)
		close(stream_end);
	assert_int_equal(pthread_join(thread, NULL), 0);
	tap_pump_finish(&pump);
	close(link_end);
	close(ends[0]);
	close(ends[1]);
	return result;
}

static size_t get(int fd, void *buf, size_t len)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t n = 0;

	while (n < len && poll(&p, 1, 5000) > 0) {
		ssize_t r = recv(fd, (char *)buf + n, len - n, 0);

		if (r <= 0)
			break;
		n += (size_t)r;
	}
	return n;
}

static void to_passt(void **state)
{
	static uint8_t frame[TAP_FRAME_MAX], got[TAP_FRAME_MAX + 4];

	begin();
	memset(frame, 7, sizeof frame);
	assert_int_equal(send(link_end, frame, TAP_FRAME_MIN, 0), TAP_FRAME_MIN);
	assert_int_equal(send(link_end, frame, TAP_FRAME_MAX, 0), TAP_FRAME_MAX);
	assert_int_equal(
		send(link_end, frame, TAP_FRAME_MIN - 1, 0), TAP_FRAME_MIN - 1); /* no frame */
	assert_int_equal(get(stream_end, got, TAP_FRAME_MIN + 4), TAP_FRAME_MIN + 4);
	assert_memory_equal(got, "\0\0\0\16", 4);
	assert_int_equal(get(stream_end, got, TAP_FRAME_MAX + 4), TAP_FRAME_MAX + 4);
	assert_memory_equal(got, "\0\1\0\15", 4);
	assert_memory_equal(got + 4, frame, TAP_FRAME_MAX);
	assert_int_equal(end(), 0);
}

/* However it is cut. */
static void to_guest(void **state)
{
	uint8_t stream[2 * (4 + 20)] = { 0, 0, 0, 20 }, got[64];

	stream[24 + 3] = 20;
	memset(stream + 4, 'a', 20);
	memset(stream + 28, 'b', 20);
	begin();
	for (size_t i = 0; i < sizeof stream; i++)
		assert_int_equal(send(stream_end, stream + i, 1, 0), 1);
	assert_int_equal(get(link_end, got, 20), 20);
	assert_memory_equal(got, stream + 4, 20);
	assert_int_equal(send(stream_end, stream, sizeof stream, 0), sizeof stream);
	assert_int_equal(get(link_end, got, 20), 20);
	assert_memory_equal(got, stream + 28, 20);
	assert_int_equal(get(link_end, got, 20), 20);
	assert_int_equal(get(link_end, got, 20), 20);
	assert_int_equal(end(), 0);
}

/* passt takes nothing for a while: all that the queues held arrives, whole and in order. */
static void back_pressure(void **state)
{
	static uint8_t frame[9000], got[9004];
	size_t sent = 0;

	begin();
	for (int idle = 0; idle < 20; sent++) {
		struct pollfd p = { .fd = link_end, .events = POLLOUT };

		frame[0] = (uint8_t)sent;
		if (poll(&p, 1, 10) <= 0 || send(link_end, frame, sizeof frame, 0) < 0) {
			idle++;
			sent--;
		}
	}
	assert_true(sent > 10);
	for (size_t i = 0; i < sent; i++) {
		assert_int_equal(get(stream_end, got, sizeof got), sizeof got);
		assert_int_equal(got[4], (uint8_t)i);
	}
	assert_int_equal(end(), 0);
}

static int after(const uint8_t length[static 4])
{
	begin();
	assert_int_equal(send(stream_end, length, 4, 0), 4);
	return end();
}

static void nonsense(void **state)
{
	static const uint8_t too_long[4] = { 0, 1, 0, 14 }, too_short[4] = { 0, 0, 0, 13 };

	assert_int_equal(after(too_long), -EBADMSG);
	assert_int_equal(after(too_short), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(to_passt),
		cmocka_unit_test(to_guest),
		cmocka_unit_test(back_pressure),
		cmocka_unit_test(nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
