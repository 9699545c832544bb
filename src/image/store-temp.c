#include "store-temp.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "lock.h"
#include "store-impl.h"
#include "str.h"
#include "tool.h"

#define STORE_TEMP_PREFIX ".tmp-"

static int store_temp_name(struct store_temp *t)
{
	unsigned long tag;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		return -errno;
	snprintf(t->name, sizeof t->name, STORE_TEMP_PREFIX "%016lx", tag);
	return 0;
}

/* A tree unpacked in a user namespace has owners that only such a namespace may remove. */
static void store_temp_remove(int parent, const char *name)
{
	if (file_remove_tree_at(parent, name) < 0)
		(void)tool_remove_mapped(parent, name);
}

static void store_temp_sweep_one(int parent, const char *name)
{
	CLEANUP_CLOSE int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

	if (fd >= 0 && lock_named_take(fd) == 0)
		store_temp_remove(parent, name);
}

void store_temp_sweep(struct store *s)
{
	int parent = s->blobs;
	int copy = openat(parent, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);

	if (!d) {
		fd_close(copy);
		return;
	}
	for (struct dirent *e; (e = readdir(d));) {
		if (str_has_prefix(e->d_name, STORE_TEMP_PREFIX))
			store_temp_sweep_one(parent, e->d_name);
	}
	closedir(d);
}

static int store_temp_make(struct store_temp *t, bool directory)
{
	int flags = O_CLOEXEC | O_NOFOLLOW;
	int r;

	r = store_temp_name(t);
	if (r < 0)
		return r;
	if (directory && mkdirat(t->parent, t->name, 0700) < 0)
		return -errno;
	flags |= directory ? O_RDONLY | O_DIRECTORY : O_RDWR | O_CREAT | O_EXCL;
	t->fd = openat(t->parent, t->name, flags, 0600);
	if (t->fd < 0)
		return directory && errno == ENOENT ? -EAGAIN : -errno;
	r = lock_named_take(t->fd);
	if (r < 0)
		store_temp_finish(t);
	return r;
}

/* Between its birth and its lock a sweep may take it away: then there is another try. */
static int store_temp_try(struct store_temp *t, bool directory)
{
	int r = -EAGAIN;

	for (int i = 0; i < 8 && (r == -EAGAIN || r == -EBUSY); i++)
		r = store_temp_make(t, directory);
	return r;
}

int store_temp_file(struct store *s, struct store_temp *ret)
{
	struct store_temp t = { .fd = -EBADF, .parent = s->blobs };
	int r;

	store_temp_sweep(s);
	t.fd = openat(s->blobs, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (t.fd < 0 && errno != EOPNOTSUPP && errno != EISDIR)
		return -errno;
	if (t.fd < 0) {
		r = store_temp_try(&t, false);
		if (r < 0)
			return r;
	}
	*ret = t;
	return 0;
}

int store_temp_dir(struct store *s, struct store_temp *ret)
{
	struct store_temp t = { .fd = -EBADF, .parent = s->blobs };
	int r;

	store_temp_sweep(s);
	r = store_temp_try(&t, true);
	if (r < 0)
		return r;
	*ret = t;
	return 0;
}

void store_temp_finish(struct store_temp *t)
{
	if (t->fd >= 0 && t->name[0])
		store_temp_remove(t->parent, t->name);
	t->fd = fd_close(t->fd);
	t->name[0] = 0;
}
