#include "unit.h"

#include "agent-wire.h"
#include "cleanup.h"

#include <errno.h>

static const char *const args[] = { "sh", "-c", "", NULL };
static const char *const env[] = { "A=1", NULL };

/* One valid message of each type. */
static const struct agent_wire_msg samples[] = {
	{ .type = AGENT_WIRE_HELLO, .hello = { 1, AGENT_STAGE_AGENT, { 1 }, { 2 } } },
	{ .type = AGENT_WIRE_WELCOME, .welcome = { 1, 1700000000000000000, { 3 } } },
	{ .type = AGENT_WIRE_READY, .ready = { AGENT_READY_DEGRADED, { "a\nb", 3 } } },
	{ .type = AGENT_WIRE_MAIN_EXIT, .exit = { AGENT_SIGNALED, 9, 1 } },
	{ .type = AGENT_WIRE_LOG, .log = { { "text", 4 } } },
	{ .type = AGENT_WIRE_STOP, .stop = { AGENT_STOP_HALT, 5000 } },
	{ .type = AGENT_WIRE_DONE, .done = { AGENT_WIRE_STOP, EPERM } },
	{ .type = AGENT_WIRE_CLOCK, .clock = { 1 } },
	{ .type = AGENT_WIRE_ENTROPY, .entropy = { { 4 } } },
	{ .type = AGENT_WIRE_PING, .ping = { 5 } },
	{ .type = AGENT_WIRE_PONG, .ping = { 6 } },
	{ .type = AGENT_WIRE_NETWORK,
		.network = { { 2 }, { 10, 0, 2, 15 }, { 10, 0, 2, 2 }, { 10, 0, 2, 3 }, 24,
			1500 } },
	{ .type = AGENT_WIRE_AUTH, .auth = { 1, { 7 } } },
	{ .type = AGENT_WIRE_AUTH_OK, .auth_ok = { 1 } },
	{ .type = AGENT_WIRE_EXEC,
		.exec = { .flags = AGENT_EXEC_FLAGS,
			.rows = 24,
			.cols = 80,
			.user = { "root", 4 },
			.workdir = { "/", 1 },
			.term = { "xterm", 5 },
			.argv = { 3, args },
			.env = { 1, env } } },
	{ .type = AGENT_WIRE_ATTACH, .attach = { { 8 }, { 1, 2, 3 } } },
	{ .type = AGENT_WIRE_FORWARD, .forward = { AGENT_FORWARD_UNIX, 0, { "/run/x", 6 } } },
	{ .type = AGENT_WIRE_INFO },
	{ .type = AGENT_WIRE_COPY_GET, .copy = { AGENT_COPY_FLAGS, { "/etc", 4 } } },
	{ .type = AGENT_WIRE_COPY_PUT, .copy = { 0, { "tmp", 3 } } },
	{ .type = AGENT_WIRE_COPY_OK },
	{ .type = AGENT_WIRE_COPY_DATA, .copy_data = { "bytes", 5 } },
	{ .type = AGENT_WIRE_COPY_END },
	{ .type = AGENT_WIRE_COPY_NOTE, .copy_note = { AGENT_COPY_OWNED, EPERM, { "a/b", 3 } } },
	{ .type = AGENT_WIRE_COPY_DONE, .copy_done = { ENOSPC, 1ULL << 33, { "a", 1 } } },
	{ .type = AGENT_WIRE_STARTED, .started = { 42 } },
	{ .type = AGENT_WIRE_FAILED, .failed = { 127, ENOENT, { "no", 2 } } },
	{ .type = AGENT_WIRE_FORWARD_OK },
	{ .type = AGENT_WIRE_INFO_REPLY, .info_reply = { { "a=b\n", 4 } } },
	{ .type = AGENT_WIRE_DATA, .data = { AGENT_STDERR, 1ULL << 40, "bytes", 5 } },
	{ .type = AGENT_WIRE_EOF, .eof = { AGENT_STDIN, 9 } },
	{ .type = AGENT_WIRE_ACK, .ack = { AGENT_STDOUT, 9 } },
	{ .type = AGENT_WIRE_SIGNAL, .signal = { 15 } },
	{ .type = AGENT_WIRE_WINSIZE, .winsize = { 24, 80 } },
	{ .type = AGENT_WIRE_EXIT, .exit = { AGENT_EXITED, 255, 0 } },
	{ .type = AGENT_WIRE_EXIT_ACK },
	{ .type = AGENT_WIRE_ATTACHED, .attached = { AGENT_ATTACHED_FLAGS, 42, 1ULL << 40, 7 } },
	{ .type = AGENT_WIRE_SIGNAL_N, .signal_n = { 7, 64 } },
	{ .type = AGENT_WIRE_SIGNAL_ACK, .signal_ack = { UINT32_MAX } },
	{ .type = AGENT_WIRE_HANGUP },
	{ .type = AGENT_WIRE_FREEZE },
	{ .type = AGENT_WIRE_THAW },
	{ .type = AGENT_WIRE_MOUNT,
		.mount = { AGENT_MOUNT_PMEM, 1ULL << 40, { "tag", 3 }, { "/srv/x", 6 } } },
	{ .type = AGENT_WIRE_UNMOUNT, .unmount = { { "/srv/x", 6 } } },
};

static uint8_t buf[AGENT_WIRE_FRAME_MAX], again[AGENT_WIRE_FRAME_MAX];

static void test_round_trip(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct agent_wire_msg m;
		ssize_t n = agent_wire_encode(&samples[i], buf, sizeof buf);

		assert_true(n >= AGENT_WIRE_HEADER);
		assert_int_equal(agent_wire_payload_length(buf), n - AGENT_WIRE_HEADER);
		assert_int_equal(agent_wire_decode(buf, (size_t)n, &m), n);
		assert_int_equal(m.type, samples[i].type);
		assert_non_null(agent_wire_type_name(m.type));
		assert_int_equal(agent_wire_encode(&m, again, sizeof again), n);
		assert_memory_equal(buf, again, (size_t)n);
	}
}

static void test_every_type_has_a_sample(void **state)
{
	for (unsigned t = 0; t < 256; t++) {
		bool found = false;

		for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
			found |= samples[i].type == t;
		assert_int_equal(found, agent_wire_type_name((uint8_t)t) != NULL);
	}
}

/* Too few bytes: wait. A payload length that is not the layout's own: malformed. */
static void test_every_wrong_length(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct agent_wire_msg m;
		ssize_t n = agent_wire_encode(&samples[i], buf, sizeof buf);

		for (ssize_t cut = 0; cut < n; cut++)
			assert_int_equal(agent_wire_decode(buf, (size_t)cut, &m), 0);
		for (ssize_t len = 0; len < n + 40; len++) {
			ssize_t r;

			buf[0] = (uint8_t)len;
			buf[1] = (uint8_t)(len >> 8);
			r = agent_wire_decode(buf, sizeof buf, &m);
			if (len == n - AGENT_WIRE_HEADER)
				assert_int_equal(r, n);
			else if (samples[i].type == AGENT_WIRE_COPY_DATA)
				assert_int_equal(r, len > 0 ? len + AGENT_WIRE_HEADER : -EBADMSG);
			else if (samples[i].type != AGENT_WIRE_DATA || len < 10)
				assert_int_equal(r, -EBADMSG);
		}
		for (ssize_t size = 0; size < n; size++)
			assert_int_equal(
				agent_wire_encode(&samples[i], again, (size_t)size), -ENOBUFS);
	}
}

static void test_header(void **state)
{
	static const uint8_t bad[][AGENT_WIRE_HEADER] = {
		{ 0, 0, 0, 0, 0x99, 0, 0, 0 },              /* no such type */
		{ 0, 0, 0, 0, AGENT_WIRE_INFO, 1, 0, 0 },   /* flags */
		{ 0, 0, 0, 0, AGENT_WIRE_INFO, 0, 1, 0 },   /* reserved */
		{ 0x41, 0, 1, 0, AGENT_WIRE_LOG, 0, 0, 0 }, /* 64 KiB + 65 */
		{ 0xff, 0xff, 0xff, 0xff, AGENT_WIRE_LOG, 0, 0, 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct agent_wire_msg m;

		assert_int_equal(agent_wire_decode(bad[i], sizeof bad[i], &m), -EBADMSG);
	}
}

static void test_copy_head(void **state)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_COPY_DATA,
		.copy_data = { again, AGENT_WIRE_COPY_MAX } };

	assert_int_equal(
		agent_wire_encode(&m, buf, sizeof buf), AGENT_WIRE_HEADER + AGENT_WIRE_COPY_MAX);
	agent_wire_copy_head(again, AGENT_WIRE_COPY_MAX);
	assert_memory_equal(buf, again, AGENT_WIRE_HEADER);
	m.copy_data.n_bytes++;
	assert_int_equal(agent_wire_encode(&m, buf, sizeof buf), -EINVAL);
}

static void test_fields_out_of_range(void **state)
{
	static const char many[AGENT_WIRE_DATA_MAX + 1];
	const struct agent_wire_msg bad[] = {
		{ .type = AGENT_WIRE_HELLO, .hello = { .stage = 3 } },
		{ .type = AGENT_WIRE_READY, .ready = { .state = 0 } },
		{ .type = AGENT_WIRE_STOP, .stop = { .mode = 4 } },
		{ .type = AGENT_WIRE_SIGNAL, .signal = { 0 } },
		{ .type = AGENT_WIRE_SIGNAL, .signal = { 65 } },
		{ .type = AGENT_WIRE_EXIT, .exit = { AGENT_EXITED, 256, 0 } },
		{ .type = AGENT_WIRE_ATTACHED, .attached = { AGENT_ATTACHED_FLAGS + 1, 0, 0, 0 } },
		{ .type = AGENT_WIRE_SIGNAL_N, .signal_n = { 0, 1 } },
		{ .type = AGENT_WIRE_SIGNAL_N, .signal_n = { 1, 0 } },
		{ .type = AGENT_WIRE_SIGNAL_N, .signal_n = { 1, 65 } },
		{ .type = AGENT_WIRE_SIGNAL_ACK, .signal_ack = { 0 } },
		{ .type = AGENT_WIRE_ACK, .ack = { 3, 0 } },
		{ .type = AGENT_WIRE_DATA, .data = { 0, 0, "", 0 } },
		{ .type = AGENT_WIRE_DATA, .data = { 0, 0, many, sizeof many } },
		{ .type = AGENT_WIRE_LOG, .log = { { "a\0b", 3 } } },
		{ .type = AGENT_WIRE_LOG, .log = { { many, AGENT_WIRE_TEXT_MAX + 1 } } },
		{ .type = AGENT_WIRE_EXEC, .exec = { .flags = 8, .argv = { 3, args } } },
		{ .type = AGENT_WIRE_EXEC },
		{ .type = AGENT_WIRE_COPY_GET, .copy = { AGENT_COPY_FLAGS + 1 } },
		{ .type = AGENT_WIRE_NETWORK, .network = { .prefix = 33, .mtu = 1500 } },
		{ .type = AGENT_WIRE_NETWORK, .network = { .prefix = 24, .mtu = 65536 } },
		{ .type = AGENT_WIRE_COPY_DATA },
		{ .type = AGENT_WIRE_COPY_NOTE, .copy_note = { AGENT_COPY_NOTES } },
		{ .type = AGENT_WIRE_COPY_NOTE, .copy_note = { 0 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(agent_wire_encode(&bad[i], buf, sizeof buf), -EINVAL);
	assert_int_equal(
		agent_wire_encode(&(struct agent_wire_msg){ .type = 0x99 }, buf, sizeof buf),
		-EOPNOTSUPP);
}

static void test_vector(void **state)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_EXEC, .exec.argv = wire_strv_from(args) };
	struct wire_str s;
	size_t pos = 0, n = 0;
	ssize_t len = agent_wire_encode(&m, buf, sizeof buf);

	assert_true(len > 0);
	assert_int_equal(agent_wire_decode(buf, (size_t)len, &m), len);
	for (; wire_strv_next(&m.exec.argv, &pos, &s); n++) {
		assert_int_equal(s.len, strlen(args[n]));
		assert_memory_equal(s.s, args[n], s.len);
	}
	assert_int_equal(n, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_type_has_a_sample),
		cmocka_unit_test(test_every_wrong_length),
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_copy_head),
		cmocka_unit_test(test_fields_out_of_range),
		cmocka_unit_test(test_vector),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
