#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/stat.h>

#define LOCK_BYTE (INT64_C(1) << 62)

static int lock_ofd(int fd, int command)
{
	struct flock lock = {
		.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE, .l_len = 1
	};

	while (fcntl(fd, command, &lock) < 0) {
		if (errno != EINTR)
			return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
	}
	return lock.l_type;
}

int lock_take(int fd)
{
	int r = lock_ofd(fd, F_OFD_SETLK);

	return r < 0 ? r : 0;
}

int lock_wait(int fd)
{
	int r = lock_ofd(fd, F_OFD_SETLKW);

	return r < 0 ? r : 0;
}

int lock_is_held(int fd)
{
	int r = lock_ofd(fd, F_OFD_GETLK);

	return r < 0 ? r : r != F_UNLCK;
}

static int lock_named(int fd, int operation)
{
	struct stat st;

	while (flock(fd, operation) < 0) {
		if (errno != EINTR)
			return errno == EWOULDBLOCK ? -EBUSY : -errno;
	}
	if (fstat(fd, &st) < 0)
		return -errno;
	return st.st_nlink == 0 ? -EAGAIN : 0;
}

int lock_named_take(int fd)
{
	return lock_named(fd, LOCK_EX | LOCK_NB);
}

int lock_named_wait(int fd)
{
	return lock_named(fd, LOCK_EX);
}
