#include "runtime-dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "file.h"
#include "lease.h"
#include "str.h"
#include "vm-dirs.h"
#include "vm-event.h"
#include "vm-lease.h"
#include "vm-spec.h"
#include "vm-status.h"

#define LOG_MAX (256 * 1024)

static const char *const kept_logs[] = { "console", "vmm.log", "vsockd.log", "supervisor.log",
	"trace" };

/* -ESTALE: directory or lock were removed by the last holder between our making and our locking. */
static int runtime_try_lock(
	const struct vm_dirs *dirs, const char *vm_name, struct runtime_dir *ret)
{
	CLEANUP_CLOSE int fd = vm_dirs_open_runtime(dirs, vm_name, true), lock = -EBADF;
	struct stat st;

	if (fd < 0)
		return fd == -ENOENT ? -ESTALE : fd;
	lock = lease_lock_at(fd, "lock");
	if (lock == -EBUSY) {
		ret->fd = TAKE_FD(fd);
		return lock;
	}
	if (lock < 0)
		return lock == -ENOENT ? -ESTALE : lock;
	if (fstat(lock, &st) < 0)
		return -errno;
	if (st.st_nlink == 0)
		return -ESTALE;
	*ret = (struct runtime_dir){ TAKE_FD(fd), TAKE_FD(lock) };
	return 0;
}

static void runtime_read_holder(int fd, char holder[static 16])
{
	CLEANUP_FREE char *text = NULL;

	holder[0] = 0;
	if (file_read_at(fd, "lock", 64, &text, NULL) == 0)
		snprintf(holder, 16, "%.15s", text);
}

int runtime_dir_lock(const struct vm_dirs *dirs, const char *vm_name, struct runtime_dir *ret,
	char ret_holder[static 16])
{
	int r = -ESTALE;

	for (int i = 0; i < 100 && r == -ESTALE; i++)
		r = runtime_try_lock(dirs, vm_name, ret);
	if (r == -EBUSY) {
		runtime_read_holder(ret->fd, ret_holder);
		ret->fd = fd_close(ret->fd);
	}
	if (r < 0)
		return r;
	if (ftruncate(ret->lock_fd, 0) == 0)
		dprintf(ret->lock_fd, "%d", getpid());
	return 0;
}

int runtime_dir_begin(const struct runtime_dir *r, char name[static RUNTIME_DIR_INCARNATION_MAX])
{
	uint32_t tag;
	int fd;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		return -EIO;
	snprintf(name, RUNTIME_DIR_INCARNATION_MAX, "i-%08x", tag);
	fd = file_mkdir_at(r->fd, name, 0711);
	if (fd < 0)
		return fd;
	(void)unlinkat(r->fd, ".current", 0);
	if (symlinkat(name, r->fd, ".current") < 0 ||
		renameat(r->fd, ".current", r->fd, "current") < 0) {
		close(fd);
		return -errno;
	}
	return fd;
}

/* Appends the file NAME below DIR to *TEXT. */
static void log_collect(int dir, const char *name, char **text, size_t *len)
{
	CLEANUP_FREE char *part = NULL;
	size_t n;
	char *p;

	if (file_read_at(dir, name, LOG_MAX, &part, &n) < 0)
		return;
	p = realloc(*text, *len + n + 1);
	if (!p)
		return;
	memcpy(p + *len, part, n);
	*text = p;
	*len += n;
	p[*len] = 0;
}

char *runtime_dir_log(int dir_fd, const char *name, size_t *ret_len)
{
	char old[64], *text = NULL;
	size_t len = 0;

	snprintf(old, sizeof old, "%s.1", name);
	log_collect(dir_fd, old, &text, &len);
	log_collect(dir_fd, name, &text, &len);
	*ret_len = len;
	return text;
}

int runtime_dir_keep(int dir_fd, int vm_fd, const struct vm_status *status)
{
	CLEANUP_CLOSE int last = file_mkdir_at(vm_fd, "last", 0700);
	int r = 0;

	if (last < 0)
		return last;
	for (size_t i = 0; i < ARRAY_SIZE(kept_logs); i++) {
		size_t len;
		CLEANUP_FREE char *text = runtime_dir_log(dir_fd, kept_logs[i], &len);
		int q;

		(void)unlinkat(last, kept_logs[i], 0);
		q = text ? file_write_at(last, kept_logs[i], text, len, 0600) : 0;
		r = r ? r : q;
	}
	/* the status last: with it, the rest is there */
	if (r == 0)
		r = vm_status_write_at(last, "status.json", status);
	return r;
}

static void runtime_remove_incarnations(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	DIR *d = copy >= 0 ? fdopendir(copy) : NULL;

	if (!d) {
		fd_close(copy);
		return;
	}
	rewinddir(d);
	for (struct dirent *e; (e = readdir(d));) {
		if (str_has_prefix(e->d_name, "i-"))
			(void)file_remove_tree_at(fd, e->d_name);
	}
	closedir(d);
	(void)unlinkat(fd, "current", 0);
	(void)unlinkat(fd, ".current", 0);
}

void runtime_dir_end(const struct vm_dirs *dirs, const char *vm_name, struct runtime_dir *r)
{
	CLEANUP_CLOSE int top = open(dirs->runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	runtime_remove_incarnations(r->fd);
	/* removed while it is held: who opened it meanwhile sees no link and tries again */
	(void)unlinkat(r->fd, "lock", 0);
	if (top >= 0)
		(void)unlinkat(top, vm_name, AT_REMOVEDIR);
	r->lock_fd = fd_close(r->lock_fd);
	r->fd = fd_close(r->fd);
}

/* The last status as the dead supervisor left it, with the end that it could not write. */
static int sweep_keep(int runtime_fd, int vm_fd)
{
	CLEANUP_CLOSE int dir = openat(runtime_fd, "current", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct vm_status s = { 0 };
	int r;

	if (dir < 0)
		return -errno;
	(void)vm_status_read_at(dir, "status", &s);
	s.stopped_usec = clock_usec(CLOCK_REALTIME);
	r = str_set(&s.state, "stopped");
	if (r == 0)
		r = str_set(&s.outcome, "crashed");
	if (r == 0)
		r = str_set(&s.cause, "the supervisor was killed");
	if (r == 0)
		r = runtime_dir_keep(dir, vm_fd, &s);
	vm_status_finish(&s);
	return r;
}

static void sweep_tell(const struct vm_dirs *dirs, const char *vm_name)
{
	struct vm_event e = { .vm = vm_name,
		.event = "state",
		.state = "stopped",
		.outcome = "crashed",
		.cause = "the supervisor was killed" };

	(void)vm_event_append(dirs, &e);
}

static int sweep_locked(const struct vm_dirs *dirs, const char *vm_name, struct runtime_dir *rt)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(dirs, vm_name, false);
	struct vm_spec spec = { 0 };
	int r = 0;

	if (vm >= 0 && vm_spec_read(vm, &spec, NULL) == 0) {
		r = sweep_keep(rt->fd, vm);
		sweep_tell(dirs, vm_name);
		if (!spec.keep)
			vm_lease_drop(dirs, vm_name);
		vm_spec_finish(&spec);
	}
	return r;
}

int runtime_dir_sweep(const struct vm_dirs *dirs, const char *vm_name)
{
	CLEANUP_CLOSE int fd = vm_dirs_open_runtime(dirs, vm_name, false);
	struct runtime_dir rt;
	char holder[16];
	int r;

	if (fd < 0)
		return fd == -ENOENT ? 0 : fd;
	r = lease_is_held_at(fd, "lock");
	if (r > 0)
		return -EBUSY;
	r = runtime_dir_lock(dirs, vm_name, &rt, holder);
	if (r < 0)
		return r;
	(void)sweep_locked(dirs, vm_name, &rt);
	runtime_dir_end(dirs, vm_name, &rt);
	return 1;
}
