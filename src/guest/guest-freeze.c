#include "guest-freeze.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "str.h"

#define FREEZE_MS     5000
#define FREEZE_CGROUP "uvms-frozen"
#define FREEZE_PASSES 64
#define PROCS_MAX     (1 << 20) /* bytes of cgroup.procs */
#define PF_KTHREAD    0x00200000

/* A mount of TYPE that has no place in anybody's tree. */
static int mount_apart(const char *type)
{
	CLEANUP_CLOSE int fs = (int)syscall(SYS_fsopen, type, 1u /* FSOPEN_CLOEXEC */);
	int fd;

	if (fs < 0)
		return -errno;
	if (syscall(SYS_fsconfig, fs, 6u /* FSCONFIG_CMD_CREATE */, NULL, NULL, 0) < 0)
		return -errno;
	fd = (int)syscall(SYS_fsmount, fs, 1u /* FSMOUNT_CLOEXEC */,
		(unsigned)(MS_NOSUID | MS_NODEV | MS_NOEXEC));
	return fd < 0 ? -errno : fd;
}

static int put(int dir, const char *file, const char *text)
{
	CLEANUP_CLOSE int fd = openat(dir, file, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
}

/* Our cgroup's path. */
static int find_home(struct guest_freeze *f)
{
	CLEANUP_FREE char *text = NULL;
	const char *at;
	int r = file_read_at(f->proc_fd, "self/cgroup", 64 * 1024, &text, NULL);

	if (r < 0)
		return r;
	at = strncmp(text, "0::/", 4) == 0 ? text : strstr(text, "\n0::/");
	if (!at)
		return -EOPNOTSUPP;
	at = strstr(at, "0::/") + 4;
	if (strcspn(at, "\n") >= sizeof f->home)
		return -ENAMETOOLONG;
	snprintf(f->home, sizeof f->home, "%.*s", (int)strcspn(at, "\n"), at);
	return 0;
}

/* proc(5): the ninth field of stat; the second is in parentheses and may hold anything. */
static bool is_kernels(const struct guest_freeze *f, const char *pid)
{
	CLEANUP_FREE char *name = str_printf("%s/stat", pid), *text = NULL;
	unsigned flags = 0;
	const char *at;

	if (!name || file_read_at(f->proc_fd, name, 4096, &text, NULL) < 0)
		return false;
	at = strrchr(text, ')');
	return at && sscanf(at, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && flags & PF_KTHREAD;
}

/* Whoever is in FROM's own list, but us and the kernel's threads, goes to TO. How many did, or -errno. */
static int move_all(const struct guest_freeze *f, int from, int to)
{
	CLEANUP_FREE char *text = NULL;
	char *save = NULL, self[16];
	int r = file_read_at(from, "cgroup.procs", PROCS_MAX, &text, NULL), n = 0;

	if (r < 0)
		return r;
	snprintf(self, sizeof self, "%d", getpid());
	for (char *p = strtok_r(text, "\n", &save); p; p = strtok_r(NULL, "\n", &save)) {
		if (str_eq(p, self) || is_kernels(f, p))
			continue;
		r = put(to, "cgroup.procs", p);
		if (r == -ESRCH)
			continue; /* it has ended */
		if (r < 0)
			return r;
		n++;
	}
	return n;
}

static bool is_frozen_already(int dir)
{
	CLEANUP_FREE char *now = NULL;

	return file_read_at(dir, "cgroup.freeze", 16, &now, NULL) == 0 && *now == '1';
}

/* Read by the descriptor that is polled: only so is an event over. */
static bool is_frozen(const struct guest_freeze_cgroup *c)
{
	char text[256];
	ssize_t n = pread(c->events_fd, text, sizeof text - 1, 0);

	text[n < 0 ? 0 : n] = 0;
	return strstr(text, "frozen 1");
}

static void fail(struct guest_freeze *f, int error, const char *who)
{
	(void)guest_freeze_thaw(f);
	f->done(f->user, error, who);
}

static void look(struct guest_freeze *f);

static void on_events(struct guest_source *s, uint32_t events)
{
	struct guest_freeze_cgroup *c = GUEST_CONTAINER(s, struct guest_freeze_cgroup, source);

	look(c->freeze);
}

static void cgroup_finish(struct guest_freeze_cgroup *c)
{
	guest_source_stop(&c->source);
	fd_close(c->events_fd);
	fd_close(c->fd);
}

/* 1: it is frozen from now on, 0: it was before, by somebody else. */
static int cgroup_freeze(struct guest_freeze *f, int fd_consume)
{
	CLEANUP_CLOSE int fd = fd_consume, events = -EBADF;
	struct guest_freeze_cgroup *c = &f->cgroups[f->n_cgroups];
	int r;

	if (is_frozen_already(fd))
		return 0;
	if (f->n_cgroups == GUEST_FREEZE_CGROUPS)
		return -E2BIG;
	events = openat(fd, "cgroup.events", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (events < 0)
		return -errno;
	r = put(fd, "cgroup.freeze", "1");
	if (r < 0)
		return r;
	*c = (struct guest_freeze_cgroup){
		.fd = TAKE_FD(fd), .events_fd = TAKE_FD(events), .freeze = f
	};
	f->n_cgroups++;
	guest_source_init(&c->source, f->loop, c->events_fd, on_events);
	guest_source_set(&c->source, EPOLLPRI);
	return 1;
}

/* Whatever is there and not frozen yet. How much there was, or -errno. */
static int pass(struct guest_freeze *f)
{
	int fd = openat(f->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), n = 0, r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d) {
		fd_close(fd);
		return -errno;
	}
	while (r >= 0 && (e = readdir(d))) {
		if (e->d_type != DT_DIR || e->d_name[0] == '.')
			continue;
		fd = openat(f->root_fd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		/* -ENOENT: it is gone */
		r = fd < 0 ? (errno == ENOENT ? 0 : -errno) : cgroup_freeze(f, fd);
		n += r > 0;
	}
	closedir(d);
	if (r >= 0)
		r = move_all(f, f->root_fd, f->cgroups[0].fd);
	return r < 0 ? r : n + r;
}

static int passes(struct guest_freeze *f)
{
	int r = 1;

	for (int i = 0; r > 0 && i < FREEZE_PASSES; i++)
		r = pass(f);
	return r > 0 ? -EAGAIN : r;
}

/* When all are still nobody can make another one: one more pass, and it is so. */
static void look(struct guest_freeze *f)
{
	int r;

	if (!f->is_waiting)
		return;
	for (size_t i = 0; i < f->n_cgroups; i++) {
		if (!is_frozen(&f->cgroups[i]))
			return;
	}
	r = pass(f);
	if (r > 0)
		return; /* an event follows */
	f->is_waiting = false;
	guest_timer_stop(&f->timer);
	if (r < 0)
		fail(f, r, "");
	else
		f->done(f->user, 0, "");
}

static void on_timer(struct guest_timer *t)
{
	struct guest_freeze *f = GUEST_CONTAINER(t, struct guest_freeze, timer);
	char path[64], who[256] = "";
	ssize_t n;

	f->is_waiting = false;
	for (size_t i = 0; i < f->n_cgroups && !*who; i++) {
		if (is_frozen(&f->cgroups[i]))
			continue;
		snprintf(path, sizeof path, "self/fd/%d", f->cgroups[i].fd);
		n = readlinkat(f->proc_fd, path, who, sizeof who - 1);
		who[n < 0 ? 0 : n] = 0;
	}
	fail(f, -ETIMEDOUT, who);
}

static int begin(struct guest_freeze *f)
{
	int fd, r;

	f->root_fd = mount_apart("cgroup2");
	f->proc_fd = mount_apart("proc");
	f->cgroups = calloc(GUEST_FREEZE_CGROUPS, sizeof *f->cgroups);
	if (f->root_fd < 0 || f->proc_fd < 0)
		return -EOPNOTSUPP;
	if (!f->cgroups)
		return -ENOMEM;
	r = find_home(f);
	if (r == 0 && *f->home)
		r = put(f->root_fd, "cgroup.procs", "0");
	if (r < 0)
		return r;
	/* the first one: it is there, and still, before anybody comes into it */
	fd = file_mkdir_at(f->root_fd, FREEZE_CGROUP, 0755);
	if (fd < 0)
		return fd;
	if (faccessat(fd, "cgroup.freeze", F_OK, 0) < 0) {
		close(fd);
		return -EOPNOTSUPP; /* before Linux 5.2 */
	}
	r = cgroup_freeze(f, fd);
	return r == 0 ? -EEXIST : r;
}

void guest_freeze_init(struct guest_freeze *f)
{
	f->root_fd = f->proc_fd = -EBADF;
}

int guest_freeze_start(struct guest_freeze *f)
{
	int r;

	if (f->is_waiting || f->root_fd >= 0)
		return -EALREADY;
	r = begin(f);
	if (r >= 0)
		r = passes(f);
	if (r < 0) {
		(void)guest_freeze_thaw(f);
		return r;
	}
	f->is_waiting = true;
	guest_timer_arm(&f->timer, f->loop, FREEZE_MS, on_timer);
	return 0;
}

/* Who came from the root goes back to it, and runs. */
static int empty(struct guest_freeze *f)
{
	int r = 1;

	for (int i = 0; r > 0 && f->n_cgroups > 0 && i < FREEZE_PASSES; i++)
		r = move_all(f, f->cgroups[0].fd, f->root_fd);
	if (unlinkat(f->root_fd, FREEZE_CGROUP, AT_REMOVEDIR) < 0 && errno != ENOENT && r >= 0)
		r = -errno;
	return r > 0 ? -EAGAIN : r;
}

/* Frozen as we were to go back to it, we would be, too: the cgroup below which it is runs first. */
static int go_home(struct guest_freeze *f)
{
	CLEANUP_FREE char *top = strndup(f->home, strcspn(f->home, "/"));
	CLEANUP_CLOSE int dir = -EBADF, home = -EBADF;
	int r;

	if (!*f->home)
		return 0;
	if (!top)
		return -ENOMEM;
	dir = openat(f->root_fd, top, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	home = openat(f->root_fd, f->home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || home < 0)
		return -errno;
	r = put(dir, "cgroup.freeze", "0");
	return r < 0 ? r : put(home, "cgroup.procs", "0");
}

/* PID 1 of a system has a cgroup of its own: it runs when we are back, and never sees that we were away. */
int guest_freeze_thaw(struct guest_freeze *f)
{
	int r = 0, q;

	f->is_waiting = false;
	guest_timer_stop(&f->timer);
	if (f->root_fd >= 0) {
		r = go_home(f);
		q = empty(f);
		r = r < 0 ? r : q;
	}
	for (size_t i = 0; i < f->n_cgroups; i++) {
		q = i == 0 ? 0 : put(f->cgroups[i].fd, "cgroup.freeze", "0");
		r = r < 0 || q == -ENODEV ? r : q;
		cgroup_finish(&f->cgroups[i]);
	}
	f->n_cgroups = 0;
	free(TAKE_PTR(f->cgroups));
	f->root_fd = fd_close(f->root_fd);
	f->proc_fd = fd_close(f->proc_fd);
	f->home[0] = 0;
	return r;
}
