#include "fdpass.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* The kernel allows SCM_MAX_FD (253) a message: room for all, so that none is lost uncounted. */
#define FDPASS_KERNEL_MAX 253

ssize_t fdpass_send(int sock, const void *data, size_t len, const int *fds, size_t n)
{
	union {
		char bytes[CMSG_SPACE(FDPASS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t r;

	assert(n <= FDPASS_MAX && len > 0);
	if (n > 0) {
		struct cmsghdr *c;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(c), fds, n * sizeof(int));
	}
	do
		r = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

/* Keeps the first MAX descriptors of C, closes the others; returns how many there were. */
static size_t fdpass_take(const struct cmsghdr *c, int *fds, size_t kept, size_t max)
{
	size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < n; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
		if (kept + i < max)
			fds[kept + i] = fd;
		else
			close(fd);
	}
	return n;
}

static ssize_t fdpass_receive(int sock, void *data, size_t len, int *fds, size_t *n_fds, int flags)
{
	union {
		char bytes[CMSG_SPACE(FDPASS_KERNEL_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = data, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = sizeof control.bytes };
	size_t max = *n_fds, found = 0;
	ssize_t r;

	do
		r = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC | flags);
	while (r < 0 && errno == EINTR);
	if (r < 0)
		return -errno;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
		if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
			found += fdpass_take(c, fds, found < max ? found : max, max);
	}
	if (found > max || (msg.msg_flags & MSG_CTRUNC)) {
		for (size_t i = 0; i < found && i < max; i++)
			close(fds[i]);
		*n_fds = 0;
		return -EPROTO;
	}
	*n_fds = found;
	return r;
}

ssize_t fdpass_recv(int sock, void *data, size_t len, int *fds, size_t *n_fds)
{
	return fdpass_receive(sock, data, len, fds, n_fds, 0);
}

ssize_t fdpass_recv_left(int sock, void *data, size_t len, int *fds, size_t *n_fds)
{
	size_t max = *n_fds;
	ssize_t r = fdpass_recv(sock, data, len, fds, n_fds);

	if (r != -ECONNRESET)
		return r;
	*n_fds = max;
	return fdpass_recv(sock, data, len, fds, n_fds);
}

ssize_t fdpass_peek(int sock, void *data, size_t len, int *fds, size_t *n_fds)
{
	return fdpass_receive(sock, data, len, fds, n_fds, MSG_PEEK);
}
