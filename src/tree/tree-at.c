#include "tree-at.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TRIES 16 /* EAGAIN: something was renamed meanwhile */

int tree_at_open(int dirfd, const char *path, uint64_t flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = resolve };
	long fd = -1;

	for (int i = 0; i < TRIES; i++) {
		fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
		if (fd >= 0 || (errno != EAGAIN && errno != EINTR))
			break;
	}
	return fd < 0 ? -errno : (int)fd;
}

int tree_at_open_prefix(int dirfd, const char *path, size_t len, uint64_t flags, uint64_t resolve)
{
	char prefix[PATH_MAX];

	if (len >= sizeof prefix)
		return -ENAMETOOLONG;
	memcpy(prefix, path, len);
	prefix[len] = 0;
	return tree_at_open(dirfd, len > 0 ? prefix : ".", flags, 0, resolve);
}
