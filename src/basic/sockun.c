#include "sockun.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleanup.h"

static int sockun_address(struct sockaddr_un *ret, int dirfd, const char *name)
{
	int n;

	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	n = snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/%s", dirfd, name);
	return n < 0 || (size_t)n >= sizeof ret->sun_path ? -ENAMETOOLONG : 0;
}

static int sockun_new(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	return fd < 0 ? -errno : fd;
}

int sockun_listen_at(int dirfd, const char *name, mode_t mode, int backlog)
{
	CLEANUP_CLOSE int fd = sockun_new();
	struct sockaddr_un sa;
	int r;

	if (fd < 0)
		return fd;
	r = sockun_address(&sa, dirfd, name);
	if (r < 0)
		return r;
	/* mode before bind(): the file is never more open than it shall be */
	if (fchmod(fd, mode) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	if (fchmodat(dirfd, name, mode, 0) < 0 || listen(fd, backlog) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int sockun_connect_at(int dirfd, const char *name)
{
	CLEANUP_CLOSE int fd = sockun_new();
	struct sockaddr_un sa;
	int r;

	if (fd < 0)
		return fd;
	r = sockun_address(&sa, dirfd, name);
	if (r < 0)
		return r;
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int sockun_listen_unnamed(int dirfd, const char *name, mode_t mode, int backlog, int *ret_path_fd)
{
	CLEANUP_CLOSE int fd = sockun_listen_at(dirfd, name, mode, backlog), path = -EBADF;
	int r;

	if (fd < 0)
		return fd;
	path = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	r = path < 0 ? -errno : 0;
	if (unlinkat(dirfd, name, 0) < 0 && r == 0)
		r = -errno;
	if (r < 0)
		return r;
	*ret_path_fd = TAKE_FD(path);
	return TAKE_FD(fd);
}

int sockun_connect_fd(int path_fd)
{
	CLEANUP_CLOSE int fd = sockun_new();
	struct sockaddr_un sa = { .sun_family = AF_UNIX };

	if (fd < 0)
		return fd;
	snprintf(sa.sun_path, sizeof sa.sun_path, "/proc/self/fd/%d", path_fd);
	if (connect(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int sockun_connect_owned(int dirfd, const char *name, uid_t owner)
{
	CLEANUP_CLOSE int path = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (path < 0 || fstat(path, &st) < 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode) || st.st_uid != owner)
		return -EPERM;
	return sockun_connect_fd(path);
}

int sockun_pair(int type, int ret_fds[static 2])
{
	return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ret_fds) < 0 ? -errno : 0;
}
