#include "vm-dirs.h"

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
#include "str.h"

#define HIDDEN_PREFIX ".vm-"
#define HIDDEN_TRIES  64

struct dir_rule {
	const char *override; /* environment: the whole path */
	const char *system;
	const char *xdg;  /* environment: the parent */
	const char *home; /* below $HOME when that is unset */
};

static const struct dir_rule state_rule = { "UVMS_STATE_DIR", "/var/lib/uvms", "XDG_STATE_HOME",
	".local/state" };
static const struct dir_rule runtime_rule = { "UVMS_RUNTIME_DIR", "/run/uvms", "XDG_RUNTIME_DIR",
	NULL };
static const struct dir_rule config_rule = { "UVMS_CONFIG_DIR", "/etc/uvms", "XDG_CONFIG_HOME",
	".config" };

static char *dir_runtime_fallback(void)
{
	struct stat st;
	char path[64];

	snprintf(path, sizeof path, "/run/user/%u", getuid());
	if (stat(path, &st) == 0 && st.st_uid == getuid())
		return str_printf("%s/uvms", path);
	return str_printf("/tmp/uvms-%u", getuid());
}

static char *dir_find(const struct dir_rule *rule)
{
	const char *v = getenv(rule->override);

	if (v && *v == '/')
		return strdup(v);
	if (v && *v) {
		CLEANUP_FREE char *cwd = getcwd(NULL, 0);

		return cwd ? str_printf("%s/%s", cwd, v) : NULL;
	}
	if (geteuid() == 0)
		return strdup(rule->system);
	v = getenv(rule->xdg);
	if (v && *v == '/')
		return str_printf("%s/uvms", v);
	if (!rule->home)
		return dir_runtime_fallback();
	v = getenv("HOME");
	return str_printf("%s/%s/uvms", v && *v ? v : "/", rule->home);
}

/* A directory in a place where others may write (/tmp) must be ours and closed to them. */
static int dir_make(const char *path)
{
	CLEANUP_CLOSE int fd = file_mkdir_path(path, geteuid() == 0 ? 0711 : 0700);
	struct stat st;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		return -errno;
	return st.st_uid != geteuid() || (st.st_mode & 022) ? -EPERM : 0;
}

int vm_dirs_init(struct vm_dirs *ret)
{
	struct vm_dirs d = { dir_find(&state_rule), dir_find(&runtime_rule), dir_find(&config_rule),
		-EBADF, -EBADF };
	int r = d.state && d.runtime && d.config ? 0 : -ENOMEM;

	if (r == 0)
		r = dir_make(d.state);
	if (r == 0)
		r = dir_make(d.runtime);
	if (r < 0) {
		vm_dirs_finish(&d);
		return r;
	}
	*ret = d;
	return 0;
}

void vm_dirs_finish(struct vm_dirs *d)
{
	free(d->state);
	free(d->runtime);
	free(d->config);
	fd_close(d->runtime_fd);
	fd_close(d->vms_fd);
	*d = (struct vm_dirs){ .runtime_fd = -EBADF, .vms_fd = -EBADF };
}

static int dir_open(int parent, const char *path)
{
	int fd = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

int vm_dirs_open_state(const struct vm_dirs *d, const char *name)
{
	CLEANUP_CLOSE int top = dir_open(AT_FDCWD, d->state);

	return top < 0 ? top : file_mkdir_at(top, name, 0711);
}

static int dir_open_sub(int top, const char *name, int create)
{
	return create ? file_mkdir_at(top, name, 0711) : dir_open(top, name);
}

int vm_dirs_open_vms(const struct vm_dirs *d)
{
	return d->vms_fd >= 0 ? dir_open(d->vms_fd, ".") : vm_dirs_open_state(d, "vms");
}

int vm_dirs_hold(struct vm_dirs *d)
{
	CLEANUP_CLOSE int vms = vm_dirs_open_vms(d), runtime = dir_open(AT_FDCWD, d->runtime);

	if (vms < 0 || runtime < 0)
		return vms < 0 ? vms : runtime;
	fd_close(d->vms_fd);
	fd_close(d->runtime_fd);
	d->vms_fd = TAKE_FD(vms);
	d->runtime_fd = TAKE_FD(runtime);
	return 0;
}

int vm_dirs_open_vm(const struct vm_dirs *d, const char *vm_name, int create)
{
	CLEANUP_CLOSE int vms = -EBADF;

	if (d->vms_fd >= 0)
		return dir_open_sub(d->vms_fd, vm_name, create);
	vms = vm_dirs_open_vms(d);
	return vms < 0 ? vms : dir_open_sub(vms, vm_name, create);
}

static int hidden_name(char out[static VM_DIRS_HIDDEN_MAX])
{
	unsigned long tag;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		return -EIO;
	snprintf(out, VM_DIRS_HIDDEN_MAX, HIDDEN_PREFIX "%016lx", tag);
	return 0;
}

/* Whoever made or hid it holds its lock as long as he lives. */
static void hidden_sweep_one(int vms, const char *name)
{
	CLEANUP_CLOSE int fd = dir_open(vms, name);

	if (fd >= 0 && lock_named_take(fd) == 0)
		(void)file_remove_tree_at(vms, name);
}

static void hidden_sweep(int vms)
{
	int copy = dir_open(vms, ".");
	DIR *dir = copy < 0 ? NULL : fdopendir(copy);

	if (!dir) {
		fd_close(copy);
		return;
	}
	for (struct dirent *e; (e = readdir(dir));) {
		if (str_has_prefix(e->d_name, HIDDEN_PREFIX))
			hidden_sweep_one(vms, e->d_name);
	}
	closedir(dir);
}

/* -EAGAIN: a sweep took it between its making and its locking. */
static int hidden_make(int vms, char ret_hidden[static VM_DIRS_HIDDEN_MAX])
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r = hidden_name(ret_hidden);

	if (r < 0)
		return r;
	fd = file_mkdir_at(vms, ret_hidden, 0711);
	if (fd < 0)
		return fd == -ENOENT ? -EAGAIN : fd;
	r = lock_named_take(fd);
	if (r < 0)
		return r == -EBUSY ? -EAGAIN : r;
	return TAKE_FD(fd);
}

int vm_dirs_new_vm(const struct vm_dirs *d, char ret_hidden[static VM_DIRS_HIDDEN_MAX])
{
	CLEANUP_CLOSE int vms = vm_dirs_open_state(d, "vms");
	int r = -EAGAIN;

	if (vms < 0)
		return vms;
	hidden_sweep(vms);
	for (int i = 0; i < HIDDEN_TRIES && r == -EAGAIN; i++)
		r = hidden_make(vms, ret_hidden);
	return r;
}

int vm_dirs_name_vm(const struct vm_dirs *d, const char *hidden, const char *vm_name)
{
	CLEANUP_CLOSE int vms = vm_dirs_open_state(d, "vms");

	if (vms < 0)
		return vms;
	return renameat2(vms, hidden, vms, vm_name, RENAME_NOREPLACE) < 0 ? -errno : 0;
}

int vm_dirs_drop_hidden(const struct vm_dirs *d, const char *hidden)
{
	CLEANUP_CLOSE int vms = vm_dirs_open_state(d, "vms");

	return vms < 0 ? vms : file_remove_tree_at(vms, hidden);
}

int vm_dirs_remove_vm(const struct vm_dirs *d, const char *vm_name)
{
	CLEANUP_CLOSE int vms = vm_dirs_open_state(d, "vms");
	char hidden[VM_DIRS_HIDDEN_MAX];
	int r;

	if (vms < 0)
		return vms;
	r = hidden_name(hidden);
	if (r < 0)
		return r;
	if (renameat(vms, vm_name, vms, hidden) < 0)
		return errno == ENOENT ? 0 : -errno;
	r = file_remove_tree_at(vms, hidden);
	return r == -ENOENT ? 0 : r; /* somebody's sweep was faster */
}

int vm_dirs_open_runtime(const struct vm_dirs *d, const char *vm_name, int create)
{
	CLEANUP_CLOSE int top = -EBADF;

	if (d->runtime_fd >= 0)
		return dir_open_sub(d->runtime_fd, vm_name, create);
	top = dir_open(AT_FDCWD, d->runtime);
	return top < 0 ? top : dir_open_sub(top, vm_name, create);
}
