#include "guest-uevent.h"

#include "cleanup.h"
#include "guest-loop.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#define KERNEL_EVENTS 1

int guest_uevent_open(void)
{
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK, .nl_groups = KERNEL_EVENTS };
	CLEANUP_CLOSE int fd = -EBADF;

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static void uevent_discard(int fd)
{
	char buf[8192];

	while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) > 0)
		;
}

int guest_uevent_wait(int (*there)(void *user), void *user, int timeout_ms)
{
	CLEANUP_CLOSE int fd =
		guest_uevent_open(); /* before the first look: nothing is missed between */
	uint64_t end = guest_loop_now_usec() + (uint64_t)timeout_ms * 1000;

	if (fd < 0)
		return fd;
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		uint64_t now = guest_loop_now_usec();
		int r = there(user);

		if (r != 0)
			return r < 0 ? r : 0;
		if (now >= end)
			return -ETIMEDOUT;
		if (poll(&p, 1, (int)((end - now) / 1000) + 1) > 0)
			uevent_discard(fd);
	}
}
