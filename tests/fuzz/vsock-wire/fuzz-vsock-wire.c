/* Packets of a guest, header and payload, put into a real engine with no socket behind it. */
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vsock-mux.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int far_end = -EBADF;

static void wake(struct vsock_mux *m)
{
}

static int dial(struct vsock_mux *m, uint32_t port)
{
	int pair[2];

	if (port % 2 || far_end >= 0)
		return -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	far_end = pair[1];
	return pair[0];
}

static void refused(struct vsock_mux *m, enum vsock_way way, uint32_t port, const char *why)
{
}

static const struct vsock_mux_hooks hooks = { wake, dial, refused };

/* One packet out of DATA; returns the bytes taken, 0 at the end. */
static size_t feed(struct vsock_mux *m, const uint8_t *data, size_t size)
{
	struct vsock_pkt p;
	struct iovec iov[2];
	size_t n;

	if (size < VSOCK_HEADER_BYTES || vsock_wire_get(data, VSOCK_HEADER_BYTES, &p) < 0)
		return 0;
	n = size - VSOCK_HEADER_BYTES < p.len % 256 ? size - VSOCK_HEADER_BYTES : p.len % 256;
	iov[0] = (struct iovec){ (void *)(data + VSOCK_HEADER_BYTES), n / 2 };
	iov[1] = (struct iovec){ (void *)(data + VSOCK_HEADER_BYTES + n / 2), n - n / 2 };
	if (vsock_mux_has_room(m))
		vsock_mux_input(m, &p, iov, 2, n);
	return VSOCK_HEADER_BYTES + n;
}

static void drain(struct vsock_mux *m)
{
	uint8_t buf[100];
	struct iovec iov = { buf, sizeof buf };
	struct vsock_pkt p;

	for (int i = 0; i < 8 && vsock_mux_output(m, &p, &iov, 1, sizeof buf); i++)
		iov = (struct iovec){ buf, sizeof buf };
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct vsock_mux m;
	struct loop loop;
	size_t n;

	if (loop_init(&loop) < 0 || vsock_mux_init(&m, &loop, &hooks, 42, 1) < 0)
		abort();
	while ((n = feed(&m, data, size)) > 0) {
		data += n;
		size -= n;
		drain(&m);
	}
	vsock_mux_finish(&m);
	if (m.table.n_used != 0)
		abort();
	loop_finish(&loop);
	if (far_end >= 0)
		close(far_end);
	far_end = -EBADF;
	return 0;
}
