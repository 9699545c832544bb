/* Hostile front-ends: every fault of the VMM ends the session with exit code 1 and a log line. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"
#include "fake-frontend.h"
#include "fdpass.h"
#include "unit.h"

static struct fake f;

#define ENDS 1

/* Sends SIZE bytes of zeroes as REQUEST with N descriptors: the session has to end. */
static void ends_by_shape(uint32_t request, size_t size, size_t n_fds, const char *why)
{
	static const uint8_t zero[1024];
	int fds[FDPASS_MAX], code;

	fake_start(&f);
	fake_handshake(&f);
	for (size_t i = 0; i < n_fds; i++)
		fds[i] = f.rings[0].kick;
	fake_message(&f, request, VU_FLAG_VERSION, zero, size, fds, n_fds);
	code = fake_wait_exit(&f);
	if (code != ENDS)
		fail_msg("request %u with %s: exit code %d", request, why, code);
}

static void every_request_wrong_shape(void **state)
{
	for (uint32_t i = 0; i < VU_REQUEST_END; i++) {
		const struct vu_shape *s = vu_wire_shape(i);

		if (!s) {
			ends_by_shape(i, 8, 1, "a number that is no request");
			continue;
		}
		if (s->size_min > 0)
			ends_by_shape(i, s->size_min - 1u, s->fds_min, "a byte less");
		ends_by_shape(i, s->size_max + 1u, s->fds_min, "a byte more");
		if (s->fds_max < FDPASS_MAX)
			ends_by_shape(i, s->size_min, s->fds_max + 1u, "a descriptor more");
		if (s->fds_min > 0)
			ends_by_shape(i, s->size_min, s->fds_min - 1u, "a descriptor less");
	}
}

/* One message after the handshake. Payload in 64-bit words, as many bytes as LEN. */
struct message {
	const char *name;
	uint32_t request, flags;
	size_t len;
	uint64_t words[10];
	enum { FD_NONE, FD_MEM, FD_MEM_TWICE, FD_EVENT, FD_NULL, FD_UNSEALED } fds;
};

#define V VU_FLAG_VERSION
#define STATE(i, n)                                                                                \
	{                                                                                          \
		(uint64_t)(n) << 32 | (i)                                                          \
	}
#define REGION(...)                                                                                \
	{                                                                                          \
		1, __VA_ARGS__                                                                     \
	}
#define REGIONS(...)                                                                               \
	{                                                                                          \
		2, __VA_ARGS__                                                                     \
	}
#define MB (1ull << 20)

static const struct message ending[] = {
	{ "version 2", VU_GET_FEATURES, 2, 0, {}, FD_NONE },
	{ "a reply", VU_GET_FEATURES, V | VU_FLAG_REPLY, 0, {}, FD_NONE },
	{ "a reserved flag", VU_GET_FEATURES, V | 0x10, 0, {}, FD_NONE },
	{ "unknown request", 4000000000u, V, 0, {}, FD_NONE },
	{ "feature not offered", VU_SET_FEATURES, V, 8, { 1ull << 63 }, FD_NONE },
	{ "protocol feature not offered", VU_SET_PROTOCOL_FEATURES, V, 8, { 1ull << 20 }, FD_NONE },
	{ "memory: no region", VU_SET_MEM_TABLE, V, 40, { 0, 0, MB, 0, 0 }, FD_MEM },
	{ "memory: more regions than bytes", VU_SET_MEM_TABLE, V, 40, { 2, 0, MB, 0, 0 }, FD_MEM },
	{ "memory: 2^32-1 regions", VU_SET_MEM_TABLE, V, 40, { UINT32_MAX, 0, MB, 0, 0 }, FD_MEM },
	{ "memory: fewer descriptors", VU_SET_MEM_TABLE, V, 72,
		REGIONS(0, MB, 0, 0, MB, MB, MB, MB), FD_MEM },
	{ "memory: more descriptors", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, 0, 0), FD_MEM_TWICE },
	{ "memory: empty region", VU_SET_MEM_TABLE, V, 40, REGION(0, 0, 0, 0), FD_MEM },
	{ "memory: guest address wraps", VU_SET_MEM_TABLE, V, 40, REGION(-4096ull, MB, 0, 0),
		FD_MEM },
	{ "memory: user address wraps", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, -4096ull, 0),
		FD_MEM },
	{ "memory: offset wraps", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, 0, -4096ull), FD_MEM },
	{ "memory: beyond the file", VU_SET_MEM_TABLE, V, 40, REGION(0, 64 * MB, 0, 0), FD_MEM },
	{ "memory: huge", VU_SET_MEM_TABLE, V, 40, REGION(0, 1ull << 62, 0, 0), FD_MEM },
	{ "memory: offset beyond the file", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, 0, 32 * MB),
		FD_MEM },
	{ "memory: not whole pages", VU_SET_MEM_TABLE, V, 40, REGION(0, 4095, 0, 0), FD_MEM },
	{ "memory: odd offset", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, 0, 8), FD_MEM },
	{ "memory: overlap", VU_SET_MEM_TABLE, V, 72,
		REGIONS(0, MB, FAKE_USER, 0, MB / 2, MB, FAKE_USER + MB, MB), FD_MEM_TWICE },
	{ "memory: user overlap", VU_SET_MEM_TABLE, V, 72,
		REGIONS(0, MB, FAKE_USER, 0, MB, MB, FAKE_USER + 4096, MB), FD_MEM_TWICE },
	{ "memory: not sealed", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, 0, 0), FD_UNSEALED },
	{ "memory: no file", VU_SET_MEM_TABLE, V, 40, REGION(0, MB, 0, 0), FD_NULL },
	{ "memory: rings vanish", VU_SET_MEM_TABLE, V, 40, REGION(0, 4096, FAKE_USER, 0), FD_MEM },
	{ "ring: index", VU_GET_VRING_BASE, V, 8, STATE(3, 0), FD_NONE },
	{ "ring: index 2^32-1", VU_GET_VRING_BASE, V, 8, STATE(UINT32_MAX, 0), FD_NONE },
	{ "ring: NUM while it runs", VU_SET_VRING_NUM, V, 8, STATE(0, 128), FD_NONE },
	{ "ring: BASE while it runs", VU_SET_VRING_BASE, V, 8, STATE(0, 0), FD_NONE },
	{ "ring: ADDR while it runs", VU_SET_VRING_ADDR, V, 40, { 0, 0, 0, 0, 0 }, FD_NONE },
	{ "ring: NUM 0", VU_SET_VRING_NUM, V, 8, STATE(2, 0), FD_NONE },
	{ "ring: NUM no power of two", VU_SET_VRING_NUM, V, 8, STATE(2, 96), FD_NONE },
	{ "ring: NUM 2048", VU_SET_VRING_NUM, V, 8, STATE(2, 2048), FD_NONE },
	{ "ring: BASE 65536", VU_SET_VRING_BASE, V, 8, STATE(2, 65536), FD_NONE },
	{ "ring: ENABLE 2", VU_SET_VRING_ENABLE, V, 8, STATE(0, 2), FD_NONE },
	{ "ring: ADDR flags", VU_SET_VRING_ADDR, V, 40, { 1ull << 32 | 2, 0, 0, 0, 0 }, FD_NONE },
	{ "ring: kick before it is described", VU_SET_VRING_KICK, V, 8, { 2 }, FD_EVENT },
	{ "ring: polling", VU_SET_VRING_KICK, V, 8, { VU_VRING_NO_FD }, FD_NONE },
	{ "ring: kick says none, has one", VU_SET_VRING_KICK, V, 8, { VU_VRING_NO_FD }, FD_EVENT },
	{ "ring: kick says one, has none", VU_SET_VRING_KICK, V, 8, { 0 }, FD_NONE },
	{ "ring: kick of /dev/null", VU_SET_VRING_KICK, V, 8, { 0 }, FD_NULL },
	{ "ring: kick reserved bits", VU_SET_VRING_KICK, V, 8, { 1ull << 40 }, FD_EVENT },
	{ "ring: call index", VU_SET_VRING_CALL, V, 8, { 200 }, FD_EVENT },
	{ "ring: err index", VU_SET_VRING_ERR, V, 8, { 255 }, FD_EVENT },
	{ "config: size is not the length", VU_GET_CONFIG, V, 20, { 100ull << 32, 0, 0 }, FD_NONE },
	{ "config: size 2^32-1", VU_GET_CONFIG, V, 12, { (uint64_t)UINT32_MAX << 32, 0 }, FD_NONE },
};

static size_t message_fds(const struct message *m, int ret[2])
{
	switch (m->fds) {
	case FD_NONE: return 0;
	case FD_MEM: ret[0] = fcntl(f.mem_fd, F_DUPFD_CLOEXEC, 3); return 1;
	case FD_MEM_TWICE:
		ret[0] = fcntl(f.mem_fd, F_DUPFD_CLOEXEC, 3);
		ret[1] = fcntl(f.mem_fd, F_DUPFD_CLOEXEC, 3);
		return 2;
	case FD_EVENT: ret[0] = eventfd(0, EFD_CLOEXEC); return 1;
	case FD_NULL: ret[0] = open("/dev/null", O_RDWR | O_CLOEXEC); return 1;
	case FD_UNSEALED:
		ret[0] = memfd_create("unsealed", MFD_CLOEXEC | MFD_ALLOW_SEALING);
		assert_int_equal(ftruncate(ret[0], 32 * MB), 0);
		return 1;
	}
	return 0;
}

static void send_message(const struct message *m)
{
	int fds[2];
	size_t n = message_fds(m, fds);

	fake_message(&f, m->request, m->flags, m->words, m->len, fds, n);
	while (n > 0)
		close(fds[--n]);
}

static void messages_that_end(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(ending); i++) {
		int code;

		fake_start(&f);
		fake_handshake(&f);
		send_message(&ending[i]);
		code = fake_wait_exit(&f);
		if (code != ENDS)
			fail_msg("%s: exit code %d", ending[i].name, code);
	}
}

/* A ring somewhere it must not be: found out when it is to start. */
static void ring_addresses(void **state)
{
	const struct {
		const char *name;
		uint64_t desc, used, avail;
	} cases[] = {
		{ "nowhere", 0, 0, 0 },
		{ "guest address taken for user address", 0x1000, 0x2000, 0x3000 },
		{ "desc beyond the end", FAKE_USER + FAKE_MEM_BYTES - 16, FAKE_USER,
			FAKE_USER + 4096 },
		{ "used beyond the end", FAKE_USER, FAKE_USER + FAKE_MEM_BYTES - 16,
			FAKE_USER + 4096 },
		{ "avail beyond the end", FAKE_USER, FAKE_USER + 4096,
			FAKE_USER + FAKE_MEM_BYTES - 16 },
		{ "desc wraps", -16ull, FAKE_USER, FAKE_USER + 4096 },
		{ "desc odd", FAKE_USER + 8, FAKE_USER + 8192, FAKE_USER + 16384 },
		{ "avail odd", FAKE_USER, FAKE_USER + 8192, FAKE_USER + 16385 },
		{ "used odd", FAKE_USER, FAKE_USER + 8194, FAKE_USER + 16384 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const uint64_t addr[] = { 2, cases[i].desc, cases[i].used, cases[i].avail, 0 };
		uint64_t index = 2;
		int code;

		fake_start(&f);
		fake_handshake(&f);
		fake_set_state(&f, VU_SET_VRING_NUM, 2, FAKE_NUM);
		fake_message(&f, VU_SET_VRING_ADDR, V, addr, sizeof addr, NULL, 0);
		fake_message(&f, VU_SET_VRING_KICK, V, &index, 8, &f.rings[0].kick, 1);
		code = fake_wait_exit(&f);
		if (code != ENDS)
			fail_msg("%s: exit code %d", cases[i].name, code);
	}
}

/* What a front-end may do, if oddly. */
static void trickled_bytes(void **state)
{
	const uint32_t head[] = { VU_GET_FEATURES, V, 0 };
	uint64_t v;

	fake_start(&f);
	for (size_t i = 0; i < sizeof head; i++) {
		assert_int_equal(send(f.sock, (const char *)head + i, 1, 0), 1);
		usleep(500);
	}
	assert_int_equal(fake_reply(&f, VU_GET_FEATURES, &v, sizeof v), 8);
	fake_handshake(&f);
	fake_stop(&f);
}

static void cut_message(void **state)
{
	fake_start(&f);
	assert_int_equal(send(f.sock, "\1\0\0\0\1\0", 6, 0), 6);
	shutdown(f.sock, SHUT_RDWR);
	assert_int_equal(fake_wait_exit(&f), ENDS);
}

/* Each payload has descriptors of its own; more than a message may have in all. */
static void descriptors_in_pieces(void **state)
{
	const uint32_t head[] = { VU_SET_VRING_CALL, V, 8 };
	int fds[FDPASS_MAX];

	fake_start(&f);
	fake_handshake(&f);
	for (int i = 0; i < FDPASS_MAX; i++)
		fds[i] = f.rings[0].kick;
	assert_int_equal(fdpass_send(f.sock, head, 12, fds, FDPASS_MAX), 12);
	assert_int_equal(fdpass_send(f.sock, head, 4, fds, FDPASS_MAX), 4);
	assert_int_equal(fake_wait_exit(&f), ENDS);
}

/* It asks and asks and never reads: the session ends, nothing blocks or grows. */
static void replies_are_not_read(void **state)
{
	const uint32_t head[] = { VU_GET_FEATURES, V, 0 };

	fake_start(&f);
	for (int i = 0; i < 200000; i++) {
		if (send(f.sock, head, sizeof head, MSG_NOSIGNAL) < 0)
			break;
	}
	assert_int_equal(fake_wait_exit(&f), ENDS);
}

/* A VMM may end by a refusal, and the guest says where it looks and writes. */
static void config_is_never_refused(void **state)
{
	const uint32_t ask[] = { 4, 8, 0, 0, 0 }, outside[] = { 250, 8, 0, 0, 0 };
	const uint8_t zeros[8] = { 0 };
	uint8_t buf[64];

	fake_start(&f);
	fake_handshake(&f);
	fake_message(&f, VU_GET_CONFIG, V, ask, sizeof ask, NULL, 0);
	assert_int_equal(fake_reply(&f, VU_GET_CONFIG, buf, sizeof buf), sizeof ask);
	assert_memory_equal(buf + 12, zeros, sizeof zeros); /* of the CID, and what is behind it */
	fake_message(&f, VU_GET_CONFIG, V, outside, sizeof outside, NULL, 0);
	assert_int_equal(fake_reply(&f, VU_GET_CONFIG, buf, sizeof buf), 0);
	fake_message(&f, VU_SET_CONFIG, V | VU_FLAG_NEED_REPLY, ask, sizeof ask, NULL, 0);
	assert_int_equal(fake_reply(&f, VU_SET_CONFIG, buf, sizeof buf), 8);
	assert_int_equal(buf[0], 0);
	fake_message(&f, VU_SET_OWNER, V | VU_FLAG_NEED_REPLY, NULL, 0, NULL, 0);
	assert_int_equal(fake_reply(&f, VU_SET_OWNER, buf, sizeof buf), 8);
	assert_int_equal(buf[0], 0);
	fake_stop(&f);
}

/* The same again and again: descriptors are replaced, never kept. */
static void setting_up_again_leaks_nothing(void **state)
{
	uint64_t index = 1;
	uint32_t base[2];

	fake_start(&f);
	fake_handshake(&f);
	for (int i = 0; i < 50; i++) {
		fake_set_memory(&f);
		fake_message(&f, VU_SET_VRING_CALL, V, &index, 8, &f.rings[1].call, 1);
		fake_set_state(&f, VU_GET_VRING_BASE, 1, 0);
		fake_reply(&f, VU_GET_VRING_BASE, base, sizeof base);
		fake_message(&f, VU_SET_VRING_KICK, V, &index, 8, &f.rings[1].kick, 1);
	}
	fake_get_u64(&f, VU_GET_QUEUE_NUM);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* What a read of the kick says is of no interest: there was one. */
static void kick_that_cannot_be_read(void **state)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	uint64_t index = 1;
	struct vsock_pkt p;
	int l, c;

	fake_setup(&f);
	l = fake_listen(&f, 9999, 1);
	fake_message(&f, VU_SET_VRING_KICK, V, &index, 8, &l, 1);
	fake_get_u64(&f, VU_GET_QUEUE_NUM);
	p = fake_pkt(VSOCK_OP_REQUEST, 1000, 7000);
	fake_tx(&f, &p, NULL, 0); /* this kicks what nobody listens to any more */
	c = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(sa.sun_path, sizeof sa.sun_path, "%s/v_9999", f.dir);
	assert_int_equal(connect(c, (struct sockaddr *)&sa, sizeof sa), 0);
	fake_expect(&f, VSOCK_OP_RST, 1000, NULL);
	close(c);
	close(l);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_request_wrong_shape),
		cmocka_unit_test(messages_that_end),
		cmocka_unit_test(ring_addresses),
		cmocka_unit_test(trickled_bytes),
		cmocka_unit_test(cut_message),
		cmocka_unit_test(descriptors_in_pieces),
		cmocka_unit_test(replies_are_not_read),
		cmocka_unit_test(config_is_never_refused),
		cmocka_unit_test(setting_up_again_leaks_nothing),
		cmocka_unit_test(kick_that_cannot_be_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
