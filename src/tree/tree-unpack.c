#include "tree-unpack.h"

#include "cleanup.h"
#include "fd.h"
#include "tree-at.h"
#include "tree-read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_SPACE (TAR_WIRE_NAME_MAX + 1)
#define MODE_KEPT  01777 /* without the owner: a setuid file of another's would be ours */
#define MODE_ALL   07777
#define MADE_MODE  0755 /* directories that the stream does not have */
#define DEPTH_MAX  (TAR_WIRE_NAME_MAX / 2 + 2)

struct attributes {
	uint32_t mode, uid, gid;
	struct timespec mtime;
};

/* A directory that the stream is in: the first LEN bytes of `inside`. */
struct level {
	size_t len;
	struct attributes a;
};

struct tree_unpack {
	struct tree_unpack_config c;
	struct tree_read *reader; /* owned */
	int file_fd;              /* owned; the file that is being written */
	int parent_fd;            /* owned; `parent`, or -EBADF */
	struct attributes file;
	uint64_t real_size;
	bool sparse, owner_told;
	const char *name;     /* in path: the last component of the present entry */
	struct level *levels; /* owned */
	size_t n_levels, levels_size;
	uint64_t n_entries;
	char path[NAME_SPACE], other[NAME_SPACE], parent[NAME_SPACE], inside[NAME_SPACE];
};

static void note(struct tree_unpack *u, uint8_t kind, int error)
{
	u->c.notes.note(u->c.notes.user, kind, error, u->path);
}

/* ---- names ---- */

static int append(char *to, size_t *len, const char *s, size_t n)
{
	if (*len + n + 2 > NAME_SPACE)
		return -ENAMETOOLONG;
	if (*len > 0)
		to[(*len)++] = '/';
	memcpy(to + *len, s, n);
	*len += n;
	to[*len] = 0;
	return 0;
}

/* Copies the name as far as people may want to see it. */
static void keep_for_message(char *to, const char *from)
{
	size_t n = strnlen(from, NAME_SPACE - 1);

	memcpy(to, from, n);
	to[n] = 0;
}

/* The name as a way below the target: -EXDEV when it leads out of it. "" is the target itself. */
static int way(struct tree_unpack *u, const char *name, char to[static NAME_SPACE])
{
	const char *only = u->c.only, *rename_to = u->c.target->rename_to;
	size_t len = 0;
	bool first = true;

	to[0] = 0;
	for (const char *s = name; *s;) {
		size_t n = strcspn(s, "/");
		int r = 0;

		if (n == 2 && memcmp(s, "..", 2) == 0)
			return -EXDEV;
		if (n > 0 && !(n == 1 && *s == '.')) {
			if (first && only && (strlen(only) != n || memcmp(only, s, n) != 0))
				return -EXDEV;
			r = first && rename_to[0] ? append(to, &len, rename_to, strlen(rename_to))
						  : append(to, &len, s, n);
			first = false;
		}
		if (r < 0)
			return r;
		s += n + (s[n] == '/');
	}
	return first && (only || rename_to[0]) ? -EXDEV : 0;
}

/* ---- directories ---- */

/* Once is enough: it is the same for all. */
static void note_owner(struct tree_unpack *u)
{
	if (!u->owner_told)
		note(u, AGENT_COPY_OWNED, 0);
	u->owner_told = true;
}

static int apply(int fd, const struct attributes *a, struct tree_unpack *u)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, a->mtime };
	bool owned = u->c.owner;
	int r = 0;

	if (owned && fchown(fd, a->uid, a->gid) < 0) {
		note_owner(u);
		owned = false;
	}
	if (fchmod(fd, a->mode & (owned ? MODE_ALL : MODE_KEPT)) < 0)
		r = -errno;
	if (futimens(fd, times) < 0 && r == 0)
		r = -errno;
	return r;
}

static void leave(struct tree_unpack *u)
{
	struct level *l = &u->levels[--u->n_levels];
	int r, fd = tree_at_open_prefix(
		       u->c.target->fd, u->inside, l->len, O_RDONLY | O_DIRECTORY, TREE_AT_BENEATH);

	r = fd < 0 ? fd : apply(fd, &l->a, u);
	fd_close(fd);
	if (r < 0)
		u->c.notes.note(u->c.notes.user, AGENT_COPY_FAILED, -r, u->inside);
	u->inside[u->n_levels > 0 ? u->levels[u->n_levels - 1].len : 0] = 0;
}

static bool is_inside(const char *path, const char *directory, size_t len)
{
	return len == 0 || (strncmp(path, directory, len) == 0 && path[len] == '/');
}

/* Leaves the directories that PATH is not in. NULL: all. */
static void leave_for(struct tree_unpack *u, const char *path)
{
	while (u->n_levels > 0 &&
		!(path && is_inside(path, u->inside, u->levels[u->n_levels - 1].len)))
		leave(u);
}

static int enter(struct tree_unpack *u, const struct attributes *a)
{
	if (u->n_levels == u->levels_size) {
		size_t size = u->levels_size ? 2 * u->levels_size : 16;
		void *p = u->n_levels < DEPTH_MAX ? reallocarray(u->levels, size, sizeof *u->levels)
						  : NULL;

		if (!p)
			return -ENOMEM;
		u->levels = p;
		u->levels_size = size;
	}
	memcpy(u->inside, u->path, sizeof u->inside);
	u->levels[u->n_levels++] = (struct level){ strlen(u->path), *a };
	return 0;
}

static int descend(int dirfd, const char *name)
{
	int fd = tree_at_open(dirfd, name, O_PATH | O_DIRECTORY, 0, TREE_AT_BENEATH);

	if (fd != -ENOENT)
		return fd;
	if (mkdirat(dirfd, name, MADE_MODE) < 0 && errno != EEXIST)
		return -errno;
	return tree_at_open(dirfd, name, O_PATH | O_DIRECTORY, 0, TREE_AT_BENEATH);
}

/* The directories on the first LEN bytes of PATH that are not there are made. */
static int open_making(struct tree_unpack *u, const char *path, size_t len)
{
	int fd = tree_at_open_prefix(
		u->c.target->fd, path, 0, O_PATH | O_DIRECTORY, TREE_AT_BENEATH);

	for (size_t at = 0; at < len && fd >= 0;) {
		char name[NAME_SPACE];
		size_t n = strcspn(path + at, "/");
		int next;

		memcpy(name, path + at, n);
		name[n] = 0;
		next = descend(fd, name);
		fd_close(fd);
		fd = next;
		at += n + 1;
	}
	return fd;
}

/* Opens what PATH is in; *RET_NAME is the rest of PATH. */
static int open_parent(struct tree_unpack *u, const char *path, bool make, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash ? (size_t)(slash - path) : 0;
	int fd;

	*ret_name = slash ? slash + 1 : path;
	fd = tree_at_open_prefix(u->c.target->fd, path, len, O_PATH | O_DIRECTORY, TREE_AT_BENEATH);
	return fd == -ENOENT && make ? open_making(u, path, len) : fd;
}

/* The same with the last one kept, for the many files of one directory. */
static int use_parent(struct tree_unpack *u)
{
	const char *slash = strrchr(u->path, '/');
	size_t len = slash ? (size_t)(slash - u->path) : 0;

	u->name = slash ? slash + 1 : u->path;
	if (u->parent_fd >= 0 && strlen(u->parent) == len && memcmp(u->parent, u->path, len) == 0)
		return 0;
	fd_close(u->parent_fd);
	u->parent_fd = open_parent(u, u->path, true, &u->name);
	memcpy(u->parent, u->path, len);
	u->parent[len] = 0;
	return u->parent_fd < 0 ? u->parent_fd : 0;
}

/* Removes what stands in an entry's way. A directory is not removed. */
static int clear_way(struct tree_unpack *u)
{
	struct stat st;

	if (fstatat(u->parent_fd, u->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	/* /dev/null as a target is meant otherwise, and a disk even more so */
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		return -EEXIST;
	return unlinkat(u->parent_fd, u->name, 0) < 0 && errno != ENOENT ? -errno : 0;
}

static int make_directory(struct tree_unpack *u)
{
	struct stat st;

	if (u->path[0] == 0) {
		/* one that was there keeps what it has */
		return u->c.target->made ? enter(u, &u->file) : 0;
	}
	if (mkdirat(u->parent_fd, u->name, 0700) < 0) {
		if (errno != EEXIST)
			return -errno;
		if (fstatat(u->parent_fd, u->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return -errno;
		if (!S_ISDIR(st.st_mode))
			return -ENOTDIR;
	}
	return enter(u, &u->file);
}

/* ---- the other types ---- */

static int make_file(struct tree_unpack *u, const struct tar_wire_entry *e)
{
	int fd = -1;

	for (int i = 0; i < 2 && fd < 0; i++) {
		fd = openat(u->parent_fd, u->name,
			O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0 && (errno != EEXIST || i > 0))
			return -errno;
		if (fd < 0) {
			int r = clear_way(u);

			if (r < 0)
				return r;
		}
	}
	u->file_fd = fd;
	u->real_size = e->real_size;
	u->sparse = e->sparse != TAR_WIRE_DENSE;
	return 0;
}

/* Owner and times of what cannot be opened; its mode is right from birth. */
static int apply_by_name(struct tree_unpack *u)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, u->file.mtime };

	if (u->c.owner &&
		fchownat(u->parent_fd, u->name, u->file.uid, u->file.gid, AT_SYMLINK_NOFOLLOW) < 0)
		note_owner(u);
	return utimensat(u->parent_fd, u->name, times, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int make_symlink(struct tree_unpack *u, const struct tar_wire_entry *e)
{
	int r = clear_way(u);

	if (r < 0)
		return r;
	if (symlinkat(e->link, u->parent_fd, u->name) < 0)
		return -errno;
	return apply_by_name(u);
}

static int make_fifo(struct tree_unpack *u, const struct tar_wire_entry *e)
{
	int r = clear_way(u), made;
	mode_t mask;

	if (r < 0)
		return r;
	mask = umask(0);
	made = mkfifoat(u->parent_fd, u->name, e->mode & 0777) < 0 ? -errno : 0;
	umask(mask);
	return made < 0 ? made : apply_by_name(u);
}

static int make_link(struct tree_unpack *u, const struct tar_wire_entry *e)
{
	CLEANUP_CLOSE int from = -EBADF;
	const char *name;
	int r = way(u, e->link, u->other);

	if (r < 0)
		return r;
	if (strcmp(u->other, u->path) == 0)
		return 0;
	from = open_parent(u, u->other, false, &name);
	if (from < 0)
		return from;
	if (linkat(from, name, u->parent_fd, u->name, 0) == 0)
		return 0;
	if (errno != EEXIST)
		return -errno;
	r = clear_way(u);
	if (r < 0)
		return r;
	return linkat(from, name, u->parent_fd, u->name, 0) < 0 ? -errno : 0;
}

static int make(struct tree_unpack *u, const struct tar_wire_entry *e)
{
	if (u->c.target->only_directory && e->type != TAR_WIRE_DIRECTORY && u->name == u->path)
		return -ENOTDIR;
	switch (e->type) {
	case TAR_WIRE_FILE: return make_file(u, e);
	case TAR_WIRE_DIRECTORY: return make_directory(u);
	case TAR_WIRE_SYMLINK: return make_symlink(u, e);
	case TAR_WIRE_LINK: return make_link(u, e);
	case TAR_WIRE_FIFO: return make_fifo(u, e);
	default: return -EOPNOTSUPP;
	}
}

/* An entry's failure: fatal, or a note and the next one. */
static int entry_failed(struct tree_unpack *u, int error)
{
	if (tree_note_is_fatal(error))
		return error;
	if (error == -EXDEV)
		note(u, AGENT_COPY_OUTSIDE, 0);
	else
		note(u, AGENT_COPY_FAILED, -error);
	return 1;
}

static int on_entry(void *user, const struct tar_wire_entry *e)
{
	struct tree_unpack *u = user;
	int r;

	if (e->type == 'V')
		return 1; /* the name of a volume */
	u->n_entries++;
	r = way(u, e->name, u->path);
	if (r < 0)
		keep_for_message(u->path, e->name);
	if (r == 0 && u->path[0] == 0 && e->type != TAR_WIRE_DIRECTORY)
		r = -EXDEV;
	if (r < 0)
		return entry_failed(u, r);
	leave_for(u, u->path);
	if (e->type == TAR_WIRE_CHAR || e->type == TAR_WIRE_DISK) {
		note(u, AGENT_COPY_REFUSED, 0);
		return 1;
	}
	if (!strchr("01256", e->type)) {
		note(u, AGENT_COPY_FORM, 0);
		return 1;
	}
	u->file = (struct attributes){ e->mode, e->uid, e->gid,
		{ .tv_sec = e->mtime_sec, .tv_nsec = e->mtime_nsec } };
	r = use_parent(u);
	if (r == 0)
		r = make(u, e);
	if (r < 0)
		return entry_failed(u, r);
	return e->type == TAR_WIRE_FILE ? 0 : 1;
}

static void remove_partial(struct tree_unpack *u)
{
	if (u->file_fd < 0)
		return;
	unlinkat(u->parent_fd, u->name, 0);
	u->file_fd = fd_close(u->file_fd);
}

static int on_data(void *user, uint64_t offset, const void *bytes, size_t n)
{
	struct tree_unpack *u = user;
	const char *p = bytes;

	while (n > 0) {
		ssize_t done = pwrite(u->file_fd, p, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0) {
			int error = done < 0 ? -errno : -EIO;

			remove_partial(u);
			return entry_failed(u, error);
		}
		p += done;
		offset += (uint64_t)done;
		n -= (size_t)done;
	}
	return 0;
}

static int on_end(void *user)
{
	struct tree_unpack *u = user;
	int r = 0;

	if (u->sparse && ftruncate(u->file_fd, (off_t)u->real_size) < 0)
		r = -errno;
	if (r == 0)
		r = apply(u->file_fd, &u->file, u);
	if (r < 0) {
		remove_partial(u);
		r = entry_failed(u, r);
		return r < 0 ? r : 0;
	}
	/* some file systems tell only here that there was no space */
	r = close(TAKE_FD(u->file_fd)) < 0 ? -errno : 0;
	if (r < 0) {
		unlinkat(u->parent_fd, u->name, 0);
		r = entry_failed(u, r);
	}
	return r < 0 ? r : 0;
}

static void on_odd(void *user, const struct tar_wire_entry *e)
{
	struct tree_unpack *u = user;

	u->n_entries++;
	keep_for_message(u->path, e->name);
	note(u, AGENT_COPY_FORM, 0);
}

static const struct tree_read_ops ops = { on_entry, on_data, on_end, on_odd };

int tree_unpack_create(const struct tree_unpack_config *c, struct tree_unpack **ret)
{
	struct tree_unpack *u = calloc(1, sizeof *u);
	int r;

	if (!u)
		return -ENOMEM;
	u->c = *c;
	u->file_fd = u->parent_fd = -EBADF;
	r = tree_read_create(&ops, u, &u->reader);
	if (r < 0) {
		free(u);
		return r;
	}
	*ret = u;
	return 0;
}

int tree_unpack_push(struct tree_unpack *u, const void *bytes, size_t n)
{
	return tree_read_push(u->reader, bytes, n);
}

int tree_unpack_end(struct tree_unpack *u)
{
	if (!tree_read_is_whole(u->reader))
		return -EBADMSG;
	leave_for(u, NULL);
	return 0;
}

void tree_unpack_destroy(struct tree_unpack *u)
{
	if (!u)
		return;
	remove_partial(u);
	leave_for(u, NULL);
	fd_close(u->parent_fd);
	free(u->levels);
	tree_read_destroy(u->reader);
	free(u);
}

const char *tree_unpack_path(const struct tree_unpack *u)
{
	return u->path;
}

uint64_t tree_unpack_entries(const struct tree_unpack *u)
{
	return u->n_entries;
}
