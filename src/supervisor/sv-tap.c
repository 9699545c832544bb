#include "sv-tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"
#include "path.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-children.h"
#include "sv.h"

#define TAP_NAME      "uvms0"
#define TAP_RESTARTS  5
#define TAP_QUEUE_MIN (1024 * 1024) /* bytes that wait for passt */

void sv_tap_init(struct sv *sv)
{
	sv->tap = (struct sv_tap){ .fd = -EBADF, .link_fd = -EBADF, .stream_fd = -EBADF };
	sv_child_init(&sv->tap.child, sv, "tapd", SV_NETWORK_GONE);
}

/* made by a child, whose namespace they keep */

/* Nothing of the host's speaks there: no address, no ARP, no IPv6. */
static int link_up(int sock, struct ifreq *ifr)
{
	CLEANUP_CLOSE int ipv6 =
		open("/proc/sys/net/ipv6/conf/" TAP_NAME "/disable_ipv6", O_WRONLY | O_CLOEXEC);

	if (ipv6 >= 0)
		(void)!write(ipv6, "1", 1);
	ifr->ifr_mtu = SV_TAP_MTU;
	if (ioctl(sock, SIOCSIFMTU, ifr) < 0)
		return -errno;
	ifr->ifr_flags = IFF_UP | IFF_NOARP;
	return ioctl(sock, SIOCSIFFLAGS, ifr) < 0 ? -errno : 0;
}

/* The kernel's side: sees what the guest sends, and not what is sent to the guest. */
static int link_open(struct ifreq *ifr)
{
	CLEANUP_CLOSE int fd =
		socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
	struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	int one = 1, room = TAP_QUEUE_MIN, r;

	if (fd < 0 || ioctl(fd, SIOCGIFINDEX, ifr) < 0)
		return -errno;
	address.sll_ifindex = ifr->ifr_ifindex;
	if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0 ||
		bind(fd, (struct sockaddr *)&address, sizeof address) < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
	r = link_up(fd, ifr);
	return r < 0 ? r : TAKE_FD(fd);
}

static int tap_open(struct ifreq *ifr)
{
	CLEANUP_CLOSE int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	ifr->ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
	if (fd < 0 || ioctl(fd, TUNSETIFF, ifr) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* In the child: its exit status is the error. */
static int tap_make_there(int channel)
{
	struct ifreq ifr = { .ifr_name = TAP_NAME };
	int fds[2];
	ssize_t n;

	/* in a user namespace of its own it needs no right here; a host that has none for us may give the right */
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET) < 0 && unshare(CLONE_NEWNET) < 0)
		return errno;
	fds[0] = tap_open(&ifr);
	if (fds[0] < 0)
		return -fds[0];
	fds[1] = link_open(&ifr);
	if (fds[1] < 0)
		return -fds[1];
	n = fdpass_send(channel, "t", 1, fds, 2);
	return n < 0 ? (int)-n : 0;
}

/* Neither outlives the descriptors: a TAP goes with its last one, the namespace with its sockets. */
static int tap_make(int ret_fds[static 2])
{
	CLEANUP_CLOSE int ours = -EBADF, theirs = -EBADF;
	size_t n_fds = 2;
	int pair[2], status, r;
	char byte;
	pid_t pid;

	r = sockun_pair(SOCK_SEQPACKET, pair);
	if (r < 0)
		return r;
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(tap_make_there(theirs));
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
	r = (int)fdpass_recv(ours, &byte, 1, ret_fds, &n_fds);
	return r < 0 ? r : n_fds == 2 ? 0 : -EPROTO;
}

/* uvms-tapd */

static int tap_spawn(struct sv *sv)
{
	struct sv_tap *t = &sv->tap;
	CLEANUP_FREE char *program = NULL;
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 }, { RLIMIT_NOFILE, 64 } };
	int fds[SPAWN_FDS_MAX] = { t->link_fd, t->stream_fd };
	struct spawn spawn = { SPAWN_DEFAULTS, .fds = fds, .n_fds = 2, .limits = limits,
		.n_limits = ARRAY_SIZE(limits) };
	int r = path_find_helper("uvms-tapd", &program);

	if (r < 0)
		return r;
	spawn.path = program;
	spawn.argv = (const char *[]){ program, sv->spec.name, NULL };
	sv_child_confine(&t->child, &spawn);
	return sv_child_start(&t->child, &spawn);
}

int sv_tap_again(struct sv *sv)
{
	sv_child_again(&sv->tap.child);
	return sv->tap.restarts++ < TAP_RESTARTS ? tap_spawn(sv) : -EAGAIN;
}

int sv_tap_start(struct sv *sv, int stream_fd_consume, char **ret_reason)
{
	int fds[2], r;

	sv->tap.stream_fd = stream_fd_consume;
	r = tap_make(fds);
	if (r < 0) {
		*ret_reason = str_printf("no TAP can be made: %s%s", strerror(-r),
			r == -ENOENT || r == -ENODEV ? " (modprobe tun)" : "");
		return -EOPNOTSUPP;
	}
	sv->tap.fd = fds[0];
	sv->tap.link_fd = fds[1];
	return tap_spawn(sv);
}

void sv_tap_stop(struct sv *sv)
{
	sv_child_finish(&sv->tap.child);
	sv->tap.fd = fd_close(sv->tap.fd);
	sv->tap.link_fd = fd_close(sv->tap.link_fd);
	sv->tap.stream_fd = fd_close(sv->tap.stream_fd);
}
