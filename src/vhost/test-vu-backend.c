/* Every request in every state, well and badly formed, whole and in pieces: nothing leaks. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fdpass.h"
#include "unit.h"
#include "vu-backend.h"

#define V          VU_FLAG_VERSION
#define MEM_BYTES  (1u << 20)
#define MEM_USER   0x7f0000000000ull
#define RING_BYTES 0x4000u

static struct loop loop;
static struct vu_backend b;
static int far_end, mem_fd, event_fd;
static int n_ended, end_error, n_started, n_stopped;
static const char *end_what;

static int dev_config(struct vu_backend *backend, uint32_t offset, void *ret, uint32_t len)
{
	if (offset > 8 || len > 8 - offset)
		return -EINVAL;
	memset(ret, 7, len);
	return 0;
}

static void dev_kicked(struct vu_backend *backend, unsigned queue)
{
}

static void dev_started(struct vu_backend *backend, unsigned queue, enum vu_begin how)
{
	n_started++;
}

static void dev_stopped(struct vu_backend *backend, unsigned queue)
{
	n_stopped++;
}

static void dev_ended(struct vu_backend *backend, int error, const char *what)
{
	n_ended++;
	end_error = error;
	end_what = what;
}

static const struct vu_device device = { .n_queues = 3,
	.config = dev_config,
	.kicked = dev_kicked,
	.started = dev_started,
	.stopped = dev_stopped,
	.ended = dev_ended };

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void begin(void)
{
	int pair[2];

	n_ended = n_started = n_stopped = end_error = 0;
	end_what = NULL;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	far_end = pair[0];
	assert_int_equal(vu_backend_open(&b, &loop, &device, pair[1]), 0);
}

static void finish(void)
{
	vu_backend_close(&b);
	close(far_end);
}

/* What a loop would do: it is told once and reads what is there. */
static void turn(void)
{
	if (!n_ended)
		b.source.fn(&b.source, EPOLLIN);
}

/* Replies would fill the socket in the end. */
static void drop_replies(void)
{
	uint8_t buf[4096];

	while (recv(far_end, buf, sizeof buf, MSG_DONTWAIT) > 0)
		;
}

/* messages: the ones of a good front-end, in order */

#define ADDR(i, at)                                                                                \
	{                                                                                          \
		i, MEM_USER + (at), MEM_USER + (at) + 0x1000, MEM_USER + (at) + 0x2000, 0          \
	}
#define QUEUE(i, at)                                                                               \
	{ VU_SET_VRING_NUM, 8, { (16ull << 32) | (i) }, -1 }, { VU_SET_VRING_BASE, 8, { i }, -1 }, \
		{ VU_SET_VRING_ADDR, 40, ADDR(i, at), -1 }, { VU_SET_VRING_ERR, 8, { i }, 'e' },   \
		{ VU_SET_VRING_KICK, 8, { i }, 'e' }, { VU_SET_VRING_CALL, 8, { i }, 'e' },        \
	{                                                                                          \
		VU_SET_VRING_ENABLE, 8, { (1ull << 32) | (i) }, -1                                 \
	}

static const struct good {
	uint32_t request, len;
	uint64_t words[5];
	int fd; /* 'm': memory, 'e': an event, -1: none */
} conversation[] = {
	{ VU_GET_FEATURES, 0, {}, -1 },
	{ VU_GET_PROTOCOL_FEATURES, 0, {}, -1 },
	{ VU_SET_PROTOCOL_FEATURES, 8, { 1 << VU_PROTOCOL_CONFIG | 1 << VU_PROTOCOL_REPLY_ACK | 1 },
		-1 },
	{ VU_SET_OWNER, 0, {}, -1 },
	{ VU_GET_QUEUE_NUM, 0, {}, -1 },
	{ VU_SET_FEATURES, 8, { 1ull << VIRTIO_F_VERSION_1 | 1ull << VU_FEATURE_PROTOCOL }, -1 },
	{ VU_SET_MEM_TABLE, 40, { 1, 0, MEM_BYTES, MEM_USER, 0 }, 'm' },
	QUEUE(0, 0),
	QUEUE(1, RING_BYTES),
	QUEUE(2, 2 * RING_BYTES),
	{ VU_GET_VRING_BASE, 8, { 0 }, -1 },
	{ VU_GET_VRING_BASE, 8, { 1 }, -1 },
	{ VU_GET_VRING_BASE, 8, { 2 }, -1 },
};

/* How much of the conversation has been had. */
static const struct {
	const char *name;
	size_t n;
} states[] = {
	{ "at the beginning", 0 },
	{ "after the features", 6 },
	{ "with memory", 7 },
	{ "with one queue described", 10 },
	{ "with one queue", 14 },
	{ "with all queues", 28 },
	{ "stopped", 31 },
};

static int good_fds(const struct good *g, int ret[1])
{
	if (g->fd < 0)
		return 0;
	ret[0] = g->fd == 'm' ? mem_fd : event_fd;
	return 1;
}

static size_t good_bytes(const struct good *g, uint8_t *ret)
{
	const uint32_t head[3] = { g->request, V, g->len };

	memcpy(ret, head, sizeof head);
	memcpy(ret + sizeof head, g->words, g->len);
	return sizeof head + g->len;
}

static void say(const struct good *g)
{
	uint8_t bytes[64];
	int fds[1], n = good_fds(g, fds);
	size_t len = good_bytes(g, bytes);

	assert_int_equal(fdpass_send(far_end, bytes, len, fds, (size_t)n), (ssize_t)len);
	turn();
	drop_replies();
}

static void bring(size_t n)
{
	begin();
	for (size_t i = 0; i < n; i++) {
		say(&conversation[i]);
		if (n_ended)
			fail_msg("message %zu ended it: %s", i, end_what);
	}
}

static void conversation_is_good(void **state)
{
	int before = count_fds();

	assert_int_equal(states[6].n, ARRAY_SIZE(conversation));
	bring(ARRAY_SIZE(conversation));
	assert_int_equal(n_started, 3);
	assert_int_equal(n_stopped, 3);
	finish();
	assert_int_equal(count_fds(), before);
}

struct odd {
	uint32_t request, size;
	size_t n_fds;
	uint8_t fill;
	bool need_reply;
};

static void say_odd(size_t state, const struct odd *o)
{
	uint8_t bytes[VU_WIRE_HEADER_BYTES + 1024];
	const uint32_t head[3] = { o->request, V | (o->need_reply ? VU_FLAG_NEED_REPLY : 0),
		o->size };
	const struct vu_shape *s = vu_wire_shape(o->request);
	int fds[FDPASS_MAX], before = count_fds();

	bring(states[state].n);
	memset(bytes, o->fill, sizeof bytes);
	memcpy(bytes, head, sizeof head);
	for (size_t i = 0; i < o->n_fds; i++)
		fds[i] = i % 2 ? event_fd : mem_fd;
	fdpass_send(far_end, bytes, sizeof head + o->size, fds, o->n_fds);
	turn();
	if (n_ended && (end_error >= 0 || !end_what))
		fail_msg("%s: request %u ended with %d", states[state].name, o->request, end_error);
	if (!n_ended && (!s || o->size < s->size_min || o->size > s->size_max ||
				o->n_fds < s->fds_min || o->n_fds > s->fds_max))
		fail_msg("%s: request %u of %u bytes with %zu descriptors was taken",
			states[state].name, o->request, o->size, o->n_fds);
	assert_in_range(n_ended, 0, 1);
	finish();
	if (count_fds() != before)
		fail_msg("%s: request %u of %u bytes with %zu descriptors leaks",
			states[state].name, o->request, o->size, o->n_fds);
}

static void every_request_in_every_state(void **state)
{
	static const size_t n_fds[] = { 0, 1, 2, FDPASS_MAX };

	for (size_t s = 0; s < ARRAY_SIZE(states); s++) {
		for (uint32_t i = 0; i <= VU_REQUEST_END; i++) {
			const struct vu_shape *shape = vu_wire_shape(i);
			uint32_t min = shape ? shape->size_min : 8,
				 max = shape ? shape->size_max : 8;
			const uint32_t sizes[] = { 0, min ? min - 1 : 0, min, max, max + 1 };

			for (size_t k = 0; k < ARRAY_SIZE(sizes) * ARRAY_SIZE(n_fds) * 2; k++)
				say_odd(s, &(struct odd){ i, sizes[k / 2 % ARRAY_SIZE(sizes)],
						   n_fds[k / 2 / ARRAY_SIZE(sizes)],
						   k % 2 ? 0xff : 0, k % 2 });
		}
	}
}

static void byte_by_byte(void **state)
{
	int before = count_fds();

	begin();
	for (size_t i = 0; i < ARRAY_SIZE(conversation); i++) {
		uint8_t bytes[64];
		int fds[1], n = good_fds(&conversation[i], fds);
		size_t len = good_bytes(&conversation[i], bytes);

		for (size_t k = 0; k < len; k++) {
			/* the descriptor may come with any byte */
			size_t with = k == i % len ? (size_t)n : 0;

			assert_int_equal(fdpass_send(far_end, bytes + k, 1, fds, with), 1);
			turn();
			if (n_ended)
				fail_msg("message %zu ended at byte %zu: %s", i, k, end_what);
		}
		drop_replies();
	}
	assert_int_equal(n_started, 3);
	finish();
	assert_int_equal(count_fds(), before);
}

/* All messages at once, as one write. */
static void all_at_once(void **state)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(conversation); i++) {
		uint8_t bytes[64];
		int fds[1], n = good_fds(&conversation[i], fds);
		size_t len = good_bytes(&conversation[i], bytes);

		assert_int_equal(fdpass_send(far_end, bytes, len, fds, (size_t)n), (ssize_t)len);
	}
	for (size_t i = 0; i < 10; i++)
		turn();
	assert_int_equal(n_ended, 0);
	assert_int_equal(n_started, 3);
	assert_int_equal(n_stopped, 3);
	finish();
}

/* The end of file at every byte: clean between two messages, a fault inside of one. */
static void end_of_file_anywhere(void **state)
{
	int before = count_fds();

	for (size_t i = 0; i < ARRAY_SIZE(conversation); i++) {
		uint8_t bytes[64];
		int fds[1], n = good_fds(&conversation[i], fds);
		size_t len = good_bytes(&conversation[i], bytes);

		for (size_t cut = 0; cut < len; cut++) {
			bring(i);
			if (cut > 0)
				assert_int_equal(fdpass_send(far_end, bytes, cut, fds, (size_t)n),
					(ssize_t)cut);
			shutdown(far_end, SHUT_RDWR);
			turn();
			assert_int_equal(n_ended, 1);
			if (cut == 0)
				assert_int_equal(end_error, 0);
			else
				assert_true(end_error < 0);
			finish();
		}
	}
	assert_int_equal(count_fds(), before);
}

static void nothing_is_read_after_the_end(void **state)
{
	static const uint32_t bad[3] = { 4000, V, 0 };

	bring(7);
	assert_int_equal(send(far_end, bad, sizeof bad, 0), sizeof bad);
	say(&conversation[7]);
	assert_int_equal(n_ended, 1);
	assert_int_equal(end_error, -EOPNOTSUPP);
	assert_null(vu_backend_queue(&b, 0));
	vu_backend_call(&b, 0);
	finish();
}

static void ten_thousand_sessions(void **state)
{
	int before = count_fds();

	for (int i = 0; i < 10000; i++) {
		bring(i % (ARRAY_SIZE(conversation) + 1));
		finish();
	}
	assert_int_equal(count_fds(), before);
}

/* Two regions with a hole, then another table: rings that are not in it end the session. */
static void ring_over_two_regions(void **state)
{
	const uint64_t table[] = { 2, 0, 0x1000, MEM_USER, 0, 0x1000, 0x1000, MEM_USER + 0x1000,
		0x1000 };
	uint8_t bytes[VU_WIRE_HEADER_BYTES + sizeof table];
	const uint32_t head[3] = { VU_SET_MEM_TABLE, V, sizeof table };
	const int fds[] = { mem_fd, mem_fd };

	bring(28);
	memcpy(bytes, head, sizeof head);
	memcpy(bytes + sizeof head, table, sizeof table);
	assert_int_equal(fdpass_send(far_end, bytes, sizeof bytes, fds, 2), (ssize_t)sizeof bytes);
	turn();
	assert_int_equal(n_ended, 1);
	assert_int_equal(end_error, -EFAULT);
	finish();
}

static int setup(void **state)
{
	mem_fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	event_fd = eventfd(0, EFD_CLOEXEC);
	if (ftruncate(mem_fd, MEM_BYTES) < 0 || fcntl(mem_fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return -1;
	return loop_init(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(conversation_is_good),
		cmocka_unit_test(every_request_in_every_state),
		cmocka_unit_test(byte_by_byte),
		cmocka_unit_test(all_at_once),
		cmocka_unit_test(end_of_file_anywhere),
		cmocka_unit_test(nothing_is_read_after_the_end),
		cmocka_unit_test(ten_thousand_sessions),
		cmocka_unit_test(ring_over_two_regions),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
