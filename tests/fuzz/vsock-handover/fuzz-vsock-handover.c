/* Messages of a fallen uvms-vsockd, put into a real engine, which then meets a guest that uses all of its credit. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vsock-handover-wire.h"
#include "vsock-mux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CID 42

static void wake(struct vsock_mux *m)
{
}

static int dial(struct vsock_mux *m, uint32_t port)
{
	return -ECONNREFUSED;
}

static void refused(struct vsock_mux *m, enum vsock_way way, uint32_t port, const char *why)
{
}

static const struct vsock_mux_hooks hooks = { wake, dial, refused };

static void take(struct vsock_mux *m, const struct vsock_handover_msg *msg, const uint8_t *ring)
{
	int pair[2] = { -EBADF, -EBADF };

	if (msg->kind == VSOCK_HANDOVER_RESET)
		(void)vsock_mux_restore_reset(m, &msg->conn.key);
	if (msg->kind != VSOCK_HANDOVER_CONN)
		return;
	if (msg->conn.state != VSOCK_DEAD &&
		socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	(void)vsock_mux_restore(m, &msg->conn, ring, pair[0]);
	if (pair[1] >= 0)
		close(pair[1]);
}

/* One message out of DATA; returns the bytes taken, 0 at the end. */
static size_t feed(struct vsock_mux *m, const uint8_t *data, size_t size)
{
	static uint8_t bytes[VSOCK_HANDOVER_MAX];
	uint8_t again[VSOCK_HANDOVER_BYTES];
	struct vsock_handover_msg msg;
	uint32_t ring;

	if (size < VSOCK_HANDOVER_BYTES)
		return 0;
	memcpy(bytes, data, VSOCK_HANDOVER_BYTES);
	memcpy(&ring, bytes + 64, sizeof ring);
	ring = ring < VSOCK_BUF_BYTES ? ring : VSOCK_BUF_BYTES;
	for (size_t fds = 0; fds < 3; fds++) {
		if (vsock_handover_get(bytes, VSOCK_HANDOVER_BYTES + ring, fds, &msg) < 0)
			continue;
		vsock_handover_put(again, &msg);
		if (memcmp(again, bytes, sizeof again) != 0)
			abort();
		take(m, &msg, bytes + VSOCK_HANDOVER_BYTES);
	}
	return VSOCK_HANDOVER_BYTES;
}

static void use(struct vsock_mux *m, const struct vsock_key *key)
{
	static uint8_t data[VSOCK_BUF_BYTES];
	struct iovec iov = { data, sizeof data };
	struct vsock_pkt p = { .src_cid = CID,
		.dst_cid = key->peer_cid,
		.src_port = key->guest_port,
		.dst_port = key->peer_port,
		.type = key->type,
		.op = VSOCK_OP_RW,
		.len = sizeof data,
		.buf_alloc = 1000 };

	vsock_mux_input(m, &p, &iov, 1, sizeof data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vsock_mux m;
	static uint8_t buf[4096];
	struct iovec iov = { buf, sizeof buf };
	struct vsock_pkt p;
	struct loop loop;
	size_t n;

	if (loop_init(&loop) < 0 || vsock_mux_init(&m, &loop, &hooks, CID, 7) < 0)
		abort();
	for (int i = 0; i < 16 && (n = feed(&m, data, size)) > 0; i++) {
		data += n;
		size -= n;
	}
	for (size_t i = 0; i < 16; i++) {
		struct vsock_key key = m.table.conns[i].key;

		if (m.table.conns[i].state != VSOCK_FREE)
			use(&m, &key);
	}
	for (int i = 0; i < 1000 && vsock_mux_output(&m, &p, &iov, 1, sizeof buf); i++)
		iov = (struct iovec){ buf, sizeof buf };
	vsock_mux_finish(&m);
	loop_finish(&loop);
	return 0;
}
