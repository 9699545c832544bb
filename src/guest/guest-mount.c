#include "guest-mount.h"

#include "cleanup.h"
#include "file.h"
#include "guest-pmem.h"
#include "guest-uevent.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LOOK_MS 200 /* a driver tells of itself a moment before its file system is there */

struct guest_mount_asked {
	uint8_t request; /* MOUNT, UNMOUNT */
	uint8_t kind;
	uint64_t bytes;
	char tag[AGENT_WIRE_TAG_MAX + 1];
	char path[AGENT_WIRE_PATH_MAX + 1];
};

/* ---- in the child ---- */

static int try_virtiofs(const struct guest_mount_asked *a)
{
	if (mount(a->tag, a->path, "virtiofs", MS_NOSUID | MS_NODEV, NULL) == 0)
		return 0;
	/* no such tag (yet) */
	return errno == EINVAL ? -EAGAIN : -errno;
}

static int mount_erofs(const char *disk, const char *path)
{
	if (mount(disk, path, "erofs", MS_RDONLY, "dax=always") == 0)
		return 0;
	/* a kernel without it knows no such option */
	if ((errno == EINVAL || errno == EOPNOTSUPP) &&
		mount(disk, path, "erofs", MS_RDONLY, NULL) == 0)
		return 0;
	return -errno;
}

static int try_pmem(const struct guest_mount_asked *a)
{
	struct guest_pmem_disk disks[GUEST_PMEM_MAX];
	char disk[sizeof disks[0].name + sizeof "/dev/"];
	int n = guest_pmem_list(disks, ARRAY_SIZE(disks)), i;

	i = n < 0 ? n : guest_pmem_choose(disks, (size_t)n, a->bytes);
	if (i < 0)
		return i;
	snprintf(disk, sizeof disk, "/dev/%s", disks[i].name);
	return mount_erofs(disk, a->path);
}

struct trial {
	const struct guest_mount_asked *asked; /* borrowed */
	int error;                             /* the last one */
};

/* For guest_uevent_wait(): what may still come is waited for. */
static int try_once(void *user)
{
	struct trial *t = user;

	t->error = t->asked->kind == AGENT_MOUNT_PMEM ? try_pmem(t->asked) : try_virtiofs(t->asked);
	return t->error == 0 ? 1 : t->error == -EAGAIN || t->error == -ENODEV ? 0 : t->error;
}

static int wait_and_mount(const struct guest_mount_asked *a)
{
	uint64_t end = guest_loop_now_usec() + AGENT_WIRE_LINK_MS * 1000;
	CLEANUP_CLOSE int dir = file_mkdir_path(a->path, 0755);
	struct trial t = { .asked = a };
	int r = dir < 0 ? dir : -ETIMEDOUT;

	while (r == -ETIMEDOUT && guest_loop_now_usec() < end)
		r = guest_uevent_wait(try_once, &t, LOOK_MS);
	if (r != -ETIMEDOUT)
		return r;
	if (a->kind == AGENT_MOUNT_PMEM && !guest_pmem_has_drivers())
		return -ENODEV;
	return t.error == -ENODEV ? -ENODEV : -ETIMEDOUT;
}

static void child_run(const struct guest_mount_asked *a)
{
	sigset_t none;
	int r;

	close_range(3, ~0U, 0); /* the agent's connections end when it says so */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	umask(022);
	if (a->request == AGENT_WIRE_MOUNT)
		r = wait_and_mount(a);
	else
		r = umount2(a->path, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
	_exit(-r);
}

/* ---- what was mounted ---- */

/* The device that is mounted at PATH, asking nobody who may not answer; 0: none is. */
static dev_t mounted_at(const char *path)
{
	struct statx st;

	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, 0,
		    &st) < 0 ||
		!(st.stx_attributes & STATX_ATTR_MOUNT_ROOT))
		return 0;
	return makedev(st.stx_dev_major, st.stx_dev_minor);
}

/* What is not mounted any more, whoever did that. */
static void points_forget(struct guest_mount *g)
{
	for (size_t i = 0; i < GUEST_MOUNT_MAX; i++) {
		struct guest_mount_point *p = &g->points[i];

		if (p->path && p->leaving.pid == 0 && mounted_at(p->path) != p->dev)
			free(TAKE_PTR(p->path));
	}
}

/* Ours at PATH; NULL: there is none. */
static struct guest_mount_point *point_find(struct guest_mount *g, const char *path)
{
	for (size_t i = 0; i < GUEST_MOUNT_MAX; i++) {
		if (str_eq(g->points[i].path, path))
			return &g->points[i];
	}
	return NULL;
}

/* Then points_forget() finds it as it is. */
static void point_left(struct guest_child *c, const siginfo_t *ending)
{
}

static struct guest_mount_point *point_free(struct guest_mount *g)
{
	for (size_t i = 0; i < GUEST_MOUNT_MAX; i++) {
		if (!g->points[i].path)
			return &g->points[i];
	}
	return NULL;
}

/* A is mounted: 0 or a positive errno. */
static int point_add(struct guest_mount *g, const struct guest_mount_asked *a)
{
	struct guest_mount_point *p = point_free(g);
	dev_t dev = mounted_at(a->path);

	if (dev == 0)
		return EIO;
	if (!p || str_set(&p->path, a->path) < 0)
		return ENOMEM;
	p->kind = a->kind;
	p->dev = dev;
	return 0;
}

/* ---- one after the other ---- */

static void mount_next(struct guest_mount *g);

static void mount_end(struct guest_mount *g, int error)
{
	uint8_t request = g->asked[0]->request;

	guest_timer_stop(&g->timer);
	free(g->asked[0]);
	g->n_asked--;
	memmove(g->asked, g->asked + 1, g->n_asked * sizeof *g->asked);
	g->done(g->user, request, error);
	mount_next(g);
}

static void mount_child_ended(struct guest_child *c, const siginfo_t *ending)
{
	struct guest_mount *g = GUEST_CONTAINER(c, struct guest_mount, child);
	int error = ending->si_code == CLD_EXITED ? ending->si_status : EINTR;

	if (error == 0 && g->asked[0]->request == AGENT_WIRE_MOUNT)
		error = point_add(g, g->asked[0]);
	mount_end(g, error);
}

/* It hangs in the kernel, and dies when that lets it. */
static void mount_on_timer(struct guest_timer *t)
{
	struct guest_mount *g = GUEST_CONTAINER(t, struct guest_mount, timer);
	struct guest_mount_point *p = point_find(g, g->asked[0]->path);
	pid_t pid = g->child.pid;

	kill(pid, SIGKILL);
	guest_reaper_forget(&g->child);
	if (p)
		guest_reaper_add(g->reaper, &p->leaving, pid, point_left);
	mount_end(g, ETIMEDOUT);
}

static int mount_spawn(struct guest_mount *g)
{
	pid_t pid = fork();

	if (pid < 0)
		return errno;
	if (pid == 0)
		child_run(g->asked[0]);
	guest_reaper_add(g->reaper, &g->child, pid, mount_child_ended);
	guest_timer_arm(&g->timer, g->loop, AGENT_WIRE_MOUNT_MS, mount_on_timer);
	return 0;
}

/* 0: it is to be done; a positive errno: it cannot be; -1: it is so already. */
static int mount_look(struct guest_mount *g, const struct guest_mount_asked *a)
{
	struct guest_mount_point *p;

	points_forget(g);
	p = point_find(g, a->path);
	if (a->request == AGENT_WIRE_UNMOUNT)
		return !p ? EINVAL : p->leaving.pid ? ETIMEDOUT : 0;
	if (p)
		return p->kind == a->kind && !p->leaving.pid ? -1 : EBUSY;
	if (a->path[0] != '/' || (a->kind == AGENT_MOUNT_VIRTIOFS && !*a->tag))
		return EINVAL;
	return point_free(g) ? 0 : ENOSPC;
}

static void mount_next(struct guest_mount *g)
{
	int r;

	if (g->n_asked == 0)
		return;
	r = mount_look(g, g->asked[0]);
	if (r == 0)
		r = mount_spawn(g);
	if (r != 0)
		mount_end(g, r < 0 ? 0 : r);
}

static void take_text(char *to, size_t size, const struct wire_str *from)
{
	snprintf(to, size, "%.*s", (int)from->len, str_or(from->s, ""));
}

static void mount_take(struct guest_mount_asked *a, const struct agent_wire_msg *m)
{
	a->request = m->type;
	if (m->type == AGENT_WIRE_UNMOUNT) {
		take_text(a->path, sizeof a->path, &m->unmount.path);
		return;
	}
	a->kind = m->mount.kind;
	a->bytes = m->mount.bytes;
	take_text(a->tag, sizeof a->tag, &m->mount.tag);
	take_text(a->path, sizeof a->path, &m->mount.path);
}

static bool mount_is_same(const struct guest_mount_asked *a, const struct guest_mount_asked *b)
{
	return a->request == b->request && a->kind == b->kind && a->bytes == b->bytes &&
	       str_eq(a->tag, b->tag) && str_eq(a->path, b->path);
}

void guest_mount_ask(struct guest_mount *g, const struct agent_wire_msg *m)
{
	CLEANUP_FREE struct guest_mount_asked *a = calloc(1, sizeof *a);

	if (!a || g->n_asked == GUEST_MOUNT_ASKED_MAX) {
		g->done(g->user, m->type, a ? EBUSY : ENOMEM);
		return;
	}
	mount_take(a, m);
	/* asked again by way of another connection */
	if (g->n_asked > 0 && mount_is_same(g->asked[0], a))
		return;
	g->asked[g->n_asked++] = TAKE_PTR(a);
	if (g->n_asked == 1)
		mount_next(g);
}

void guest_mount_finish(struct guest_mount *g)
{
	guest_timer_stop(&g->timer);
	guest_reaper_forget(&g->child);
	while (g->n_asked > 0)
		free(g->asked[--g->n_asked]);
	for (size_t i = 0; i < GUEST_MOUNT_MAX; i++) {
		guest_reaper_forget(&g->points[i].leaving);
		free(TAKE_PTR(g->points[i].path));
	}
}
