#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "fd.h"
#include "str.h"

#define TREE_DEPTH_MAX (1 << 20)

int file_read_fd(int fd, size_t max, char **ret_data, size_t *ret_len)
{
	CLEANUP_FREE char *data = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		ssize_t n;

		if (len + 1 >= size) {
			size_t bigger = size ? size * 2 : 4096;
			char *p;

			if (bigger > max + 2)
				bigger = max + 2;
			if (bigger <= size)
				return -EFBIG;
			p = realloc(data, bigger);
			if (!p)
				return -ENOMEM;
			data = p;
			size = bigger;
		}
		n = fd_read_full(fd, data + len, size - len - 1);
		if (n < 0)
			return (int)n;
		len += (size_t)n;
		if (len > max)
			return -EFBIG;
		if (len + 1 < size)
			break;
	}
	data[len] = 0;
	*ret_data = TAKE_PTR(data);
	if (ret_len)
		*ret_len = len;
	return 0;
}

int file_read_at(int dirfd, const char *name, size_t max, char **ret_data, size_t *ret_len)
{
	CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);

	if (fd < 0)
		return -errno;
	return file_read_fd(fd, max, ret_data, ret_len);
}

static int file_fill(int dirfd, const char *name, const void *data, size_t len, mode_t mode)
{
	CLEANUP_CLOSE int fd =
		openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	int r;

	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, data, len);
	if (r < 0)
		return r;
	if (fchmod(fd, mode) < 0)
		return -errno;
	return 0;
}

int file_write_at(int dirfd, const char *name, const void *data, size_t len, mode_t mode)
{
	char temporary[NAME_MAX + 1];
	unsigned long tag;
	int r;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		return -errno;
	r = snprintf(temporary, sizeof temporary, ".%s.%lx", name, tag);
	if (r < 0 || (size_t)r >= sizeof temporary)
		return -ENAMETOOLONG;
	r = file_fill(dirfd, temporary, data, len, mode);
	if (r >= 0 && renameat(dirfd, temporary, dirfd, name) < 0)
		r = -errno;
	if (r < 0 && r != -EEXIST)
		unlinkat(dirfd, temporary, 0);
	return r;
}

int file_mkdir_at(int dirfd, const char *name, mode_t mode)
{
	int fd;

	if (mkdirat(dirfd, name, mode) < 0 && errno != EEXIST)
		return -errno;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int file_mkdir_path(const char *path, mode_t mode)
{
	CLEANUP_FREE char *copy = strdup(path);
	int fd;

	if (!copy)
		return -ENOMEM;
	for (char *p = copy + 1; *copy && *p; p++) {
		if (*p != '/')
			continue;
		*p = 0;
		if (mkdir(copy, 0755) < 0 && errno != EEXIST)
			return -errno;
		*p = '/';
	}
	if (mkdir(copy, mode) < 0 && errno != EEXIST)
		return -errno;
	fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static void dir_close(DIR *d)
{
	if (d)
		closedir(d);
}

DEFINE_CLEANUP(DIR *, dir_close);

static int dir_open(int dirfd, const char *name, DIR **ret)
{
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r;

	*ret = fd < 0 ? NULL : fdopendir(fd);
	if (*ret)
		return 0;
	r = -errno;
	fd_close(fd);
	return r;
}

/* 1: NAME is a directory, 0: it is none, and gone. */
static int file_drop(int dirfd, const char *name)
{
	if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
		return 0;
	return errno == EISDIR || errno == EPERM ? 1 : -errno;
}

/* What lies in directory NAME goes, directories to TOP; then it goes, too. */
static int file_flatten(int top, const char *name)
{
	CLEANUP(dir_closep) DIR *d = NULL;
	int r = dir_open(top, name, &d);

	for (struct dirent *e; r == 0 && (e = readdir(d));) {
		char temporary[32];
		unsigned long tag;

		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		r = file_drop(dirfd(d), e->d_name);
		if (r <= 0)
			continue;
		r = getrandom(&tag, sizeof tag, 0) == sizeof tag ? 0 : -EIO;
		snprintf(temporary, sizeof temporary, ".rm.%lx", tag);
		if (r == 0 && renameat(dirfd(d), e->d_name, top, temporary) < 0)
			r = -errno;
	}
	if (r < 0)
		return r;
	return unlinkat(top, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* How many directories there were, or the first error. */
static int file_empty_once(int top)
{
	CLEANUP(dir_closep) DIR *d = NULL;
	int r = dir_open(top, ".", &d), n = 0;

	for (struct dirent *e; d && (e = readdir(d));) {
		int q;

		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		q = file_drop(top, e->d_name);
		if (q > 0) {
			q = file_flatten(top, e->d_name);
			n++;
		}
		if (q < 0 && r == 0)
			r = q;
	}
	return r < 0 ? r : n;
}

/* However deep it is, a few descriptors are enough: who made the tree may not like that it goes. */
static int file_empty_dir(int top)
{
	int r = 1;

	for (int i = 0; r > 0 && i < TREE_DEPTH_MAX; i++)
		r = file_empty_once(top);
	return r > 0 ? -ELOOP : r;
}

int file_remove_tree_at(int dirfd, const char *name)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	r = file_drop(dirfd, name);
	if (r <= 0)
		return r;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = file_empty_dir(fd);
	if (r < 0)
		return r;
	return unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

static int file_by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int file_list_at(int dirfd, const char *name, size_t max, char ***ret)
{
	CLEANUP(strv_freep) char **names = NULL;
	int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	size_t n = 0;

	if (!d) {
		r = -errno;
		fd_close(fd);
		return r;
	}
	for (struct dirent *e; r == 0 && (e = readdir(d));) {
		if (str_eq(e->d_name, ".") || str_eq(e->d_name, ".."))
			continue;
		r = n++ < max ? strv_push(&names, e->d_name) : -E2BIG;
	}
	closedir(d);
	if (r < 0)
		return r;
	if (names)
		qsort(names, n, sizeof *names, file_by_name);
	*ret = TAKE_PTR(names);
	return 0;
}

/* From one file system to another. */
static int copy_by_hand(int from, int to, off_t at, off_t end)
{
	char buf[16 * 1024];

	while (at < end) {
		size_t want = (size_t)(end - at) < sizeof buf ? (size_t)(end - at) : sizeof buf;
		ssize_t n = pread(from, buf, want, at),
			m = n > 0 ? pwrite(to, buf, (size_t)n, at) : n;

		if (m < 0)
			return -errno;
		if (m == 0)
			return -EIO;
		at += m;
	}
	return 0;
}

static int copy_region(int from, int to, off_t at, off_t end)
{
	while (at < end) {
		off_t there = at;
		ssize_t n = copy_file_range(from, &at, to, &there, (size_t)(end - at), 0);

		if (n < 0 && (errno == EXDEV || errno == EOPNOTSUPP || errno == ENOSYS))
			return copy_by_hand(from, to, at, end);
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO; /* it was longer a moment ago */
	}
	return 0;
}

static int copy_regions(int from, int to, off_t size)
{
	off_t at = 0, end;
	int r = 0;

	while (r == 0 && at < size) {
		at = lseek(from, at, SEEK_DATA);
		if (at < 0)
			return errno == ENXIO ? 0 : -errno; /* nothing but a hole */
		end = lseek(from, at, SEEK_HOLE);
		if (end < 0)
			return -errno;
		r = copy_region(from, to, at, end < size ? end : size);
		at = end;
	}
	return r;
}

int file_clone_fd(int from, int to)
{
	struct stat st;
	int r = 0;

	if (fstat(from, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if (ioctl(to, FICLONE, from) < 0) {
		if (ftruncate(to, st.st_size) < 0)
			return -errno;
		r = copy_regions(from, to, st.st_size);
	}
	return r < 0 ? r : fsync(to) < 0 ? -errno : 0;
}
