#include "tree-target.h"

#include "cleanup.h"
#include "fd.h"
#include "tree-at.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* The last name of PATH without slashes behind it: where it starts, and its length. */
static size_t last_name(const char *path, size_t *ret_len)
{
	size_t end = strlen(path), start;

	while (end > 0 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/';)
		start--;
	*ret_len = end - start;
	return start;
}

static int open_parent(int dirfd, const char *path, uint64_t resolve, struct tree_target *t)
{
	char parent[PATH_MAX];
	size_t len, start = last_name(path, &len);

	if (len == 0 || start >= sizeof parent)
		return -ENOENT;
	if (len >= sizeof t->rename_to)
		return -ENAMETOOLONG;
	memcpy(t->rename_to, path + start, len);
	t->rename_to[len] = 0;
	if (strcmp(t->rename_to, ".") == 0 || strcmp(t->rename_to, "..") == 0)
		return -ENOENT;
	memcpy(parent, path, start);
	parent[start] = 0;
	t->fd = tree_at_open(dirfd, start > 0 ? parent : ".", O_PATH | O_DIRECTORY, 0, resolve);
	return t->fd < 0 ? t->fd : 0;
}

static int make_directory(struct tree_target *t)
{
	int fd;

	if (mkdirat(t->fd, t->rename_to, 0755) < 0)
		return -errno;
	fd = tree_at_open(t->fd, t->rename_to, O_PATH | O_DIRECTORY, 0, TREE_AT_BENEATH);
	if (fd < 0)
		return fd;
	fd_close(t->fd);
	t->fd = fd;
	t->made = true;
	t->rename_to[0] = 0;
	return 0;
}

int tree_target_open(int dirfd, const char *path, uint64_t resolve, bool contents, bool directory,
	struct tree_target *ret)
{
	struct tree_target t = { .fd = -EBADF };
	size_t len = strlen(path);
	int r;

	if (len == 0)
		return -ENOENT;
	r = t.fd = tree_at_open(dirfd, path, O_PATH | O_DIRECTORY, 0, resolve);
	if (r >= 0) {
		*ret = t;
		return 0;
	}
	/* a file or a link that leads nowhere is replaced by what comes */
	if (directory || (r == -ENOTDIR && (contents || path[len - 1] == '/')) ||
		(r != -ENOENT && r != -ENOTDIR && r != -ELOOP))
		return r;
	t.only_directory = path[len - 1] == '/';
	r = open_parent(dirfd, path, resolve, &t);
	if (r == 0 && contents)
		r = make_directory(&t);
	if (r < 0) {
		tree_target_close(&t);
		return r;
	}
	*ret = t;
	return 0;
}

void tree_target_close(struct tree_target *t)
{
	t->fd = fd_close(t->fd);
}
