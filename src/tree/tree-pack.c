#include "tree-pack.h"

#include "cleanup.h"
#include "fd.h"
#include "tar-wire.h"
#include "tree-at.h"
#include "tree-links.h"
#include "tree-sparse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define NAME_SPACE   (TAR_WIRE_NAME_MAX + 1)
#define LISTING_SIZE (16 * 1024)
#define OPEN_FLAGS   (O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define LEVELS_MAX   (TAR_WIRE_NAME_MAX / 2 + 2)

/* A directory that is walked: the first LEN bytes of `path`. */
struct level {
	int fd; /* owned, or -EBADF */
	uint32_t len;
	off_t offset; /* of the next entry in the directory */
	dev_t dev;
	ino_t ino;
};

/* What getdents64(2) gives. */
struct listing {
	uint64_t ino;
	int64_t offset;
	uint16_t length;
	uint8_t type;
	char name[];
};

struct tree_pack {
	struct tree_pack_config c;
	int root_fd;          /* owned; the top directory */
	size_t root_len;      /* bytes of path that name it */
	struct level *levels; /* owned */
	size_t n_levels, levels_size;
	size_t listing_at, listing_len;
	struct tree_links links;
	struct tree_sparse *sparse; /* owned */
	bool apart_told;
	uint8_t late_note; /* about what was named; nothing is said before the first pull */

	/* the present file */
	int file_fd; /* owned */
	size_t region;
	uint64_t in_region;
	uint64_t zeros; /* padding after it */
	bool broken;    /* the rest of it is zeros */

	uint8_t *head; /* owned: headers and map that go out first */
	size_t head_at, head_len;
	uint64_t n_entries;
	struct tar_wire_region whole; /* the regions of a file that is not sparse */
	struct tar_wire_entry entry;
	char path[NAME_SPACE];
	_Alignas(8) char listing[LISTING_SIZE];
};

static void note(struct tree_pack *p, uint8_t kind, int error)
{
	p->c.notes.note(p->c.notes.user, kind, error, p->path);
}

/* ---- one entry ---- */

static void fill_entry(struct tree_pack *p, uint8_t type, const struct stat *st)
{
	struct tar_wire_entry *e = &p->entry;

	e->type = type;
	e->sparse = TAR_WIRE_DENSE;
	e->mode = st->st_mode & 07777;
	e->uid = st->st_uid;
	e->gid = st->st_gid;
	e->size = e->real_size = 0;
	e->mtime_sec = st->st_mtim.tv_sec;
	e->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
	e->name_len = strlen(p->path);
	memcpy(e->name, p->path, e->name_len + 1);
	e->link_len = 0;
	if (e->name_len == 0) {
		memcpy(e->name, ".", 2);
		e->name_len = 1;
	}
}

static int emit(struct tree_pack *p)
{
	ssize_t n = tar_wire_encode(&p->entry, p->head);

	if (n < 0)
		return -ENAMETOOLONG;
	p->head_at = 0;
	p->head_len = (size_t)n;
	p->n_entries++;
	return 0;
}

static void emit_map(struct tree_pack *p)
{
	p->head_len += tree_sparse_text(p->sparse, (char *)p->head + p->head_len);
}

static bool is_linked(struct tree_pack *p, const struct stat *st)
{
	const char *first;

	if (st->st_nlink < 2)
		return false;
	first = tree_links_find(&p->links, st->st_dev, st->st_ino);
	if (!first)
		return false;
	p->entry.type = TAR_WIRE_LINK;
	p->entry.link_len = strlen(first);
	memcpy(p->entry.link, first, p->entry.link_len + 1);
	return true;
}

static void remember(struct tree_pack *p, const struct stat *st)
{
	if (st->st_nlink < 2)
		return;
	if (tree_links_add(&p->links, st->st_dev, st->st_ino, p->path) == 0 || p->apart_told)
		return;
	p->apart_told = true;
	note(p, AGENT_COPY_APART, 0);
}

/* Takes the file over: what it says now is what the header says. */
static int begin_file(struct tree_pack *p, int fd_consume, const struct stat *st)
{
	struct tar_wire_entry *e = &p->entry;
	uint64_t size = (uint64_t)st->st_size;
	int r;

	p->file_fd = fd_consume;
	p->sparse->n = 0;
	if ((uint64_t)st->st_blocks * 512 < size)
		tree_sparse_scan(p->file_fd, size, p->sparse);
	e->size = e->real_size = size;
	p->whole = (struct tar_wire_region){ 0, size };
	if (p->sparse->n > 0) {
		e->sparse = TAR_WIRE_SPARSE_PAX;
		p->head_len = 0;
		emit_map(p);
		e->size = p->head_len + p->sparse->data_bytes;
	}
	r = emit(p);
	if (r < 0) {
		p->file_fd = fd_close(p->file_fd);
		return r;
	}
	if (p->sparse->n > 0)
		emit_map(p);
	p->region = 0;
	p->in_region = 0;
	p->broken = false;
	p->zeros = tar_wire_padding(e->size);
	return 0;
}

static int open_file(struct tree_pack *p, int dirfd, const char *name, const struct stat *st)
{
	CLEANUP_CLOSE int fd = openat(dirfd, name, OPEN_FLAGS);
	struct stat now;
	int r;

	if (fd < 0 || fstat(fd, &now) < 0)
		return -errno;
	if (!S_ISREG(now.st_mode))
		return -ESTALE;
	fill_entry(p, TAR_WIRE_FILE, &now);
	r = begin_file(p, TAKE_FD(fd), &now);
	if (r == 0)
		remember(p, st);
	return r;
}

static int emit_symlink(struct tree_pack *p, int dirfd, const char *name, const struct stat *st)
{
	ssize_t n;

	fill_entry(p, TAR_WIRE_SYMLINK, st);
	n = readlinkat(dirfd, name, p->entry.link, NAME_SPACE);
	if (n < 0)
		return -errno;
	if (n > TAR_WIRE_NAME_MAX)
		return -ENAMETOOLONG;
	p->entry.link[n] = 0;
	p->entry.link_len = (size_t)n;
	return emit(p);
}

static int emit_plain(struct tree_pack *p, uint8_t type, const struct stat *st)
{
	fill_entry(p, type, st);
	return emit(p);
}

static uint8_t left_out_as(const struct stat *st)
{
	if (S_ISSOCK(st->st_mode))
		return AGENT_COPY_SOCKET;
	return S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode) ? AGENT_COPY_DEVICE : 0;
}

/* Whatever is no directory. 0 also when it was left out with a note. */
static int pack_entry(struct tree_pack *p, int dirfd, const char *name, const struct stat *st)
{
	uint8_t left_out = left_out_as(st);
	int r;

	if (left_out) {
		note(p, left_out, 0);
		return 0;
	}
	fill_entry(p, TAR_WIRE_FILE, st);
	if (is_linked(p, st))
		return emit(p);
	if (S_ISREG(st->st_mode))
		return open_file(p, dirfd, name, st);
	r = S_ISLNK(st->st_mode) ? emit_symlink(p, dirfd, name, st)
				 : emit_plain(p, TAR_WIRE_FIFO, st);
	if (r == 0)
		remember(p, st);
	return r;
}

/* ---- the walk ---- */

static struct level *top(struct tree_pack *p)
{
	return &p->levels[p->n_levels - 1];
}

static int push(struct tree_pack *p, int fd_consume, const struct stat *st)
{
	if (p->n_levels == p->levels_size) {
		size_t size = p->levels_size ? 2 * p->levels_size : 16;
		void *v = p->n_levels < LEVELS_MAX
				  ? reallocarray(p->levels, size, sizeof *p->levels)
				  : NULL;

		if (!v) {
			fd_close(fd_consume);
			return -ENOMEM;
		}
		p->levels = v;
		p->levels_size = size;
	}
	if (p->n_levels > TREE_PACK_OPEN)
		top(p)->fd = fd_close(top(p)->fd);
	p->levels[p->n_levels++] =
		(struct level){ fd_consume, (uint32_t)strlen(p->path), 0, st->st_dev, st->st_ino };
	p->listing_at = p->listing_len = 0;
	return 0;
}

static void pop(struct tree_pack *p)
{
	fd_close(top(p)->fd);
	p->n_levels--;
	p->listing_at = p->listing_len = 0;
}

/* Opens the top level again, if it was closed, where it was left. */
static int resume(struct tree_pack *p)
{
	struct level *l = top(p);
	const char *below = p->path + p->root_len;
	size_t len = l->len - p->root_len;
	struct stat st;

	if (l->fd >= 0)
		return 0;
	if (len > 0 && *below == '/') {
		below++;
		len--;
	}
	l->fd = tree_at_open_prefix(
		p->root_fd, below, len, O_RDONLY | O_DIRECTORY, TREE_AT_BENEATH);
	if (l->fd < 0)
		return l->fd;
	if (fstat(l->fd, &st) < 0)
		return -errno;
	return st.st_dev == l->dev && st.st_ino == l->ino ? 0 : -ESTALE;
}

static int enter(struct tree_pack *p, int dirfd, const char *name, const struct stat *st)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct stat now;
	int r;

	if (p->c.one_fs && st->st_dev != p->levels[0].dev) {
		note(p, AGENT_COPY_MOUNT, 0);
		return emit_plain(p, TAR_WIRE_DIRECTORY, st);
	}
	fd = openat(dirfd, name, OPEN_FLAGS | O_DIRECTORY);
	if (fd < 0 || fstat(fd, &now) < 0)
		return -errno;
	r = emit_plain(p, TAR_WIRE_DIRECTORY, &now);
	return r < 0 ? r : push(p, TAKE_FD(fd), &now);
}

static int set_path(struct tree_pack *p, size_t len, const char *name)
{
	size_t n = strlen(name), slash = len > 0;

	if (len + slash + n >= NAME_SPACE)
		return -ENAMETOOLONG;
	if (slash)
		p->path[len] = '/';
	memcpy(p->path + len + slash, name, n + 1);
	return 0;
}

static int walk_name(struct tree_pack *p, const char *name)
{
	struct stat st;
	int dirfd = top(p)->fd, r;

	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	r = set_path(p, top(p)->len, name);
	if (r < 0)
		return r;
	if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return S_ISDIR(st.st_mode) ? enter(p, dirfd, name, &st) : pack_entry(p, dirfd, name, &st);
}

/* Reads on in the top directory: 1, or 0 at its end. */
static int read_listing(struct tree_pack *p)
{
	struct level *l = top(p);
	long n;
	int r = resume(p);

	if (r < 0)
		return r;
	if (lseek(l->fd, l->offset, SEEK_SET) < 0)
		return -errno;
	n = syscall(SYS_getdents64, l->fd, p->listing, sizeof p->listing);
	if (n < 0)
		return -errno;
	p->listing_at = 0;
	p->listing_len = (size_t)n;
	return n > 0;
}

static void walk_failed(struct tree_pack *p, int error)
{
	note(p, AGENT_COPY_FAILED, -error);
}

/* One step: something is in the head then, or not. */
static void walk(struct tree_pack *p)
{
	const struct listing *d;
	int r;

	if (p->listing_at == p->listing_len) {
		p->path[top(p)->len] = 0;
		r = read_listing(p);
		if (r < 0)
			walk_failed(p, r);
		if (r <= 0) {
			pop(p);
			return;
		}
	}
	d = (const struct listing *)(const void *)(p->listing + p->listing_at);
	p->listing_at += d->length;
	top(p)->offset = (off_t)d->offset;
	r = walk_name(p, d->name);
	if (r < 0)
		walk_failed(p, r);
}

/* ---- starting ---- */

int tree_pack_name_of(const char *path, struct tree_pack_name *ret)
{
	size_t end = strlen(path), start;

	if (end == 0)
		return -ENOENT;
	*ret = (struct tree_pack_name){ .directory = path[end - 1] == '/' };
	while (end > 0 && path[end - 1] == '/')
		end--;
	for (start = end; start > 0 && path[start - 1] != '/';)
		start--;
	if (end - start >= sizeof ret->name)
		return -ENAMETOOLONG;
	memcpy(ret->name, path + start, end - start);
	ret->contents = start == end || strcmp(ret->name, ".") == 0 || strcmp(ret->name, "..") == 0;
	if (ret->contents)
		ret->name[0] = 0;
	return 0;
}

static int start_directory(struct tree_pack *p, int fd_consume, const struct stat *st)
{
	int r;

	fd_close(p->root_fd);
	p->root_fd = openat(fd_consume, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd_close(fd_consume);
	if (p->root_fd < 0)
		return -errno;
	p->root_len = strlen(p->path);
	r = emit_plain(p, TAR_WIRE_DIRECTORY, st);
	return r < 0 ? r : push(p, fcntl(p->root_fd, F_DUPFD_CLOEXEC, 3), st);
}

/* A descriptor of O_PATH is opened for reading by way of its directory's descriptor. */
static int start_other(struct tree_pack *p, int dirfd, const char *path, uint64_t resolve, int fd,
	const struct stat *st)
{
	struct stat now;
	int file;

	if (S_ISLNK(st->st_mode))
		return emit_symlink(p, fd, "", st);
	p->late_note = left_out_as(st);
	if (p->late_note)
		return 0;
	if (!S_ISREG(st->st_mode))
		return pack_entry(p, AT_FDCWD, NULL, st);
	file = tree_at_open(dirfd, path, OPEN_FLAGS & ~(p->c.follow ? O_NOFOLLOW : 0), 0, resolve);
	if (file < 0)
		return file;
	if (fstat(file, &now) < 0 || now.st_ino != st->st_ino || now.st_dev != st->st_dev) {
		fd_close(file);
		return -ESTALE;
	}
	fill_entry(p, TAR_WIRE_FILE, &now);
	if (is_linked(p, &now)) {
		fd_close(file);
		return emit(p);
	}
	remember(p, &now);
	return begin_file(p, file, &now);
}

int tree_pack_start(struct tree_pack *p, int dirfd, const char *path, uint64_t resolve)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct tree_pack_name name;
	struct stat st;
	bool follow;
	int r = tree_pack_name_of(path, &name);

	if (r < 0)
		return r;
	follow = p->c.follow || name.directory;
	memcpy(p->path, name.name, sizeof name.name);
	fd = tree_at_open(dirfd, path, O_PATH | (follow ? 0 : O_NOFOLLOW), 0, resolve);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return start_directory(p, TAKE_FD(fd), &st);
	return start_other(p, dirfd, path, resolve, fd, &st);
}

/* ---- the stream ---- */

static size_t pull_head(struct tree_pack *p, uint8_t *buf, size_t size)
{
	size_t n = MIN(size, p->head_len - p->head_at);

	memcpy(buf, p->head + p->head_at, n);
	p->head_at += n;
	return n;
}

/* The region that data come from now; NULL at the file's end. */
static const struct tar_wire_region *present_region(struct tree_pack *p)
{
	bool sparse = p->sparse->n > 0;
	size_t n = sparse ? p->sparse->n : 1;
	const struct tar_wire_region *g = sparse ? p->sparse->region : &p->whole;

	while (p->region < n && p->in_region == g[p->region].length) {
		p->region++;
		p->in_region = 0;
	}
	return p->region < n ? &g[p->region] : NULL;
}

static void break_file(struct tree_pack *p, int error)
{
	p->broken = true;
	if (error)
		note(p, AGENT_COPY_FAILED, error);
	else
		note(p, AGENT_COPY_CHANGED, 0);
}

static size_t pull_file(struct tree_pack *p, uint8_t *buf, size_t size)
{
	const struct tar_wire_region *g = present_region(p);
	size_t want;
	ssize_t n = -1;

	if (!g) {
		p->file_fd = fd_close(p->file_fd);
		return 0;
	}
	want = (size_t)MIN((uint64_t)size, g->length - p->in_region);
	if (!p->broken) {
		do
			n = pread(p->file_fd, buf, want, (off_t)(g->offset + p->in_region));
		while (n < 0 && errno == EINTR);
		if (n <= 0)
			break_file(p, n < 0 ? errno : 0);
	}
	if (p->broken) {
		memset(buf, 0, want);
		n = (ssize_t)want;
	}
	p->in_region += (uint64_t)n;
	return (size_t)n;
}

static size_t pull_zeros(struct tree_pack *p, uint8_t *buf, size_t size)
{
	size_t n = (size_t)MIN((uint64_t)size, p->zeros);

	memset(buf, 0, n);
	p->zeros -= n;
	return n;
}

ssize_t tree_pack_pull(struct tree_pack *p, void *buf, size_t size)
{
	uint8_t *to = buf;
	size_t n = 0;

	if (p->late_note)
		note(p, p->late_note, 0);
	p->late_note = 0;
	while (n < size) {
		if (p->head_at < p->head_len)
			n += pull_head(p, to + n, size - n);
		else if (p->file_fd >= 0)
			n += pull_file(p, to + n, size - n);
		else if (p->zeros > 0)
			n += pull_zeros(p, to + n, size - n);
		else if (p->n_levels > 0)
			walk(p);
		else
			break;
	}
	return (ssize_t)n;
}

int tree_pack_create(const struct tree_pack_config *c, struct tree_pack **ret)
{
	struct tree_pack *p = calloc(1, sizeof *p);

	if (!p)
		return -ENOMEM;
	p->c = *c;
	p->root_fd = p->file_fd = -EBADF;
	p->sparse = malloc(sizeof *p->sparse);
	p->head = malloc(TAR_WIRE_HEAD_MAX + TREE_SPARSE_TEXT_MAX);
	if (!p->sparse || !p->head) {
		tree_pack_destroy(p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

void tree_pack_destroy(struct tree_pack *p)
{
	if (!p)
		return;
	while (p->n_levels > 0)
		pop(p);
	fd_close(p->root_fd);
	fd_close(p->file_fd);
	tree_links_finish(&p->links);
	free(p->levels);
	free(p->sparse);
	free(p->head);
	free(p);
}

const char *tree_pack_path(const struct tree_pack *p)
{
	return p->path;
}

uint64_t tree_pack_entries(const struct tree_pack *p)
{
	return p->n_entries;
}
