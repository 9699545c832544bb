#include "volume.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "lock.h"
#include "str.h"
#include "tool.h"

#define VOLUME_DISK "disk"
#define VOLUMES_MAX 100000
#define VOLUME_NEW  "disk.new"

/* Without reserved blocks: no root of the host will ever need them. */
static int volume_format(int dir, const char *name, char **ret_reason)
{
	static const char *const mkfs[] = { "mkfs.ext4", NULL };
	sigset_t before;
	int r;

	r = tool_require(mkfs, ret_reason);
	if (r < 0)
		return r;
	tool_signals_hold(&before);
	r = tool_run(
		&(struct tool){ TOOL_DEFAULTS, .cwd_fd = dir,
			.argv = (const char *[]){ "mkfs.ext4", "-q", "-F", "-m", "0", "-L", name,
				"-E", "root_owner=0:0,lazy_itable_init=1", VOLUME_NEW, NULL } },
		ret_reason);
	tool_signals_release(&before);
	return r;
}

/* DIR is locked: nobody else makes it. */
static int volume_make(int dir, const char *name, uint64_t size_bytes, char **ret_reason)
{
	CLEANUP_CLOSE int fd =
		openat(dir, VOLUME_NEW, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	char label[17] = "";
	int r;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)size_bytes) < 0)
		return -errno;
	strncat(label, name, sizeof label - 1); /* all that ext4 has room for */
	r = volume_format(dir, label, ret_reason);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	if (r == 0 && renameat(dir, VOLUME_NEW, dir, VOLUME_DISK) < 0)
		r = -errno;
	if (r < 0)
		(void)unlinkat(dir, VOLUME_NEW, 0);
	return r;
}

static int volume_open_disk(int dir)
{
	int fd = openat(dir, VOLUME_DISK, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

/* The directory, locked against other makers and removers for as long as it is open. */
static int volume_hold(int volumes_fd, const char *name, bool create)
{
	CLEANUP_CLOSE int dir =
		create ? file_mkdir_at(volumes_fd, name, 0700)
		       : openat(volumes_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int r;

	if (dir < 0)
		return create ? dir : -errno;
	r = lock_named_wait(dir);
	return r < 0 ? r : TAKE_FD(dir);
}

static int volume_check_size(int fd, const char *name, uint64_t size_bytes, char **ret_reason)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (size_bytes == 0 || (uint64_t)st.st_size == size_bytes)
		return 0;
	*ret_reason = str_printf(
		"volume %s is there and has %lluM, not %lluM; growing one is not supported yet",
		name, (unsigned long long)st.st_size >> 20, (unsigned long long)size_bytes >> 20);
	return -EEXIST;
}

int volume_open(int volumes_fd, const char *name, uint64_t size_bytes, char **ret_reason)
{
	CLEANUP_CLOSE int dir = -EBADF, fd = -EBADF;
	int r;

	dir = volume_hold(volumes_fd, name, true);
	if (dir < 0)
		return dir;
	fd = volume_open_disk(dir);
	if (fd == -ENOENT) {
		r = volume_make(
			dir, name, size_bytes ? size_bytes : VOLUME_DEFAULT_BYTES, ret_reason);
		if (r < 0) {
			(void)unlinkat(volumes_fd, name, AT_REMOVEDIR);
			return r;
		}
		fd = volume_open_disk(dir);
	}
	if (fd < 0)
		return fd;
	r = volume_check_size(fd, name, size_bytes, ret_reason);
	if (r < 0)
		return r;
	r = lock_take(fd);
	if (r == -EBUSY)
		*ret_reason = str_printf("volume %s is in use by another VM", name);
	return r < 0 ? r : TAKE_FD(fd);
}

int volume_open_beside(int volumes_fd, const char *name)
{
	CLEANUP_CLOSE int dir =
		openat(volumes_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	int fd = dir < 0 ? -1 : openat(dir, VOLUME_DISK, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

int volume_make_from(int volumes_fd, const char *name, int from_fd, char **ret_reason)
{
	CLEANUP_CLOSE int dir = volume_hold(volumes_fd, name, true), fd = -EBADF;
	int r;

	if (dir < 0)
		return dir;
	if (faccessat(dir, VOLUME_DISK, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
		*ret_reason = str_printf("there is a volume %s already", name);
		return -EEXIST;
	}
	fd = openat(dir, VOLUME_NEW, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	r = file_clone_fd(from_fd, fd);
	if (r == 0 && renameat(dir, VOLUME_NEW, dir, VOLUME_DISK) < 0)
		r = -errno;
	if (r == 0)
		return 0;
	(void)unlinkat(dir, VOLUME_NEW, 0);
	(void)unlinkat(volumes_fd, name, AT_REMOVEDIR);
	return r;
}

int volume_look(int volumes_fd, const char *name, struct volume *ret)
{
	CLEANUP_CLOSE int dir =
		openat(volumes_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat st;
	int held;

	if (dir < 0)
		return -errno;
	fd = volume_open_disk(dir);
	if (fd < 0)
		return fd;
	held = lock_is_held(fd);
	if (held < 0)
		return held;
	if (fstat(fd, &st) < 0)
		return -errno;
	*ret = (struct volume){ .name = strdup(name),
		.size_bytes = (uint64_t)st.st_size,
		.used_bytes = (uint64_t)st.st_blocks * 512,
		.in_use = held };
	return ret->name ? 0 : -ENOMEM;
}

void volume_finish(struct volume *v)
{
	free(v->name);
	*v = (struct volume){ 0 };
}

int volume_list(int volumes_fd, char ***ret)
{
	CLEANUP(strv_freep) char **all = NULL, **names = NULL;
	int r = file_list_at(volumes_fd, ".", VOLUMES_MAX, &all);

	for (char **n = all; r == 0 && n && *n; n++)
		r = **n == '.' ? 0 : strv_push(&names, *n);
	if (r == 0)
		*ret = TAKE_PTR(names);
	return r;
}

int volume_remove(int volumes_fd, const char *name)
{
	CLEANUP_CLOSE int dir = volume_hold(volumes_fd, name, false), fd = -EBADF;
	int r;

	if (dir < 0)
		return dir;
	fd = volume_open_disk(dir);
	r = fd == -ENOENT ? 0 : fd < 0 ? fd : lock_take(fd);
	return r < 0 ? r : file_remove_tree_at(volumes_fd, name);
}
