#include "guest-transport.h"

#include "agent-wire.h"
#include "cleanup.h"
#include "guest-uevent.h"
#include "sockun.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

/* After the socket headers: it uses their types. */
#include <linux/vm_sockets.h>

#define BACKLOG     128
#define SOCKET_MODE 0600

static int test_root(const char *path)
{
	int fd = open(path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int vsock_socket(void)
{
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

static int vsock_dial(unsigned cid, unsigned port)
{
	struct sockaddr_vm sa = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port };
	CLEANUP_CLOSE int fd = vsock_socket();

	if (fd < 0)
		return fd;
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0 && errno != EINPROGRESS)
		return errno == ENETUNREACH ? -ENODEV : -errno;
	return TAKE_FD(fd);
}

int guest_transport_listen(const struct guest_transport *t)
{
	struct sockaddr_vm sa = {
		.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = AGENT_PORT
	};
	CLEANUP_CLOSE int fd = -EBADF, root = -EBADF;

	if (t->listen_path) {
		root = test_root(t->listen_path);
		return root < 0 ? root
				: sockun_listen_at(root, t->listen_path, SOCKET_MODE, BACKLOG);
	}
	fd = vsock_socket();
	if (fd < 0)
		return fd;
	if (bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int guest_transport_dial(const struct guest_transport *t)
{
	CLEANUP_CLOSE int root = -EBADF;

	if (!t->listen_path)
		return vsock_dial(VMADDR_CID_HOST, AGENT_PORT);
	if (!t->home_path)
		return -ENODEV;
	root = test_root(t->home_path);
	return root < 0 ? root : sockun_connect_at(root, t->home_path);
}

int guest_transport_dial_local_vsock(unsigned port)
{
	return vsock_dial(VMADDR_CID_LOCAL, port);
}

/* The device is there when it has given this machine a CID of its own. */
static int vsock_is_there(void *unused)
{
	CLEANUP_CLOSE int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
	unsigned cid = VMADDR_CID_ANY;

	if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0)
		return 0;
	return cid > VMADDR_CID_HOST && cid != VMADDR_CID_ANY;
}

int guest_transport_wait(const struct guest_transport *t, int timeout_ms)
{
	return t->listen_path ? 0 : guest_uevent_wait(vsock_is_there, NULL, timeout_ms);
}
