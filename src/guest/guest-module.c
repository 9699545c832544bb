#include "guest-module.h"

#include "cleanup.h"
#include "file.h"
#include "guest-stop.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LIST_MAX  (64 * 1024)
#define LATE_MAX  64
#define LATE_NICE 10
#define LATE_USEC 500000 /* loading a module is not preempted: let the start pass first */

static int module_load(int fd)
{
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

static void module_warn(const char *name, int error)
{
	guest_stop_warn("module %s: %s", name, strerror(error));
}

/* Calls FN with the open file of each module that LIST names; FN takes it over. */
static int module_each(const char *list, const char *dir,
	void (*fn)(const char *name, int fd_consume, void *userdata), void *userdata)
{
	CLEANUP_CLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FREE char *text = NULL;
	char *rest, *name;
	int r;

	r = file_read_at(AT_FDCWD, list, LIST_MAX, &text, NULL);
	if (r < 0)
		return r;
	rest = text;
	while ((name = strsep(&rest, "\n"))) {
		int fd = *name ? openat(dir_fd, name, O_RDONLY | O_CLOEXEC) : -1;

		if (fd >= 0)
			fn(name, fd, userdata);
		else if (*name)
			module_warn(name, errno);
	}
	return 0;
}

static void module_load_now(const char *name, int fd_consume, void *userdata)
{
	int r = module_load(fd_consume);

	close(fd_consume);
	if (r < 0)
		module_warn(name, -r);
}

int guest_module_load_all(const char *list, const char *dir)
{
	return module_each(list, dir, module_load_now, NULL);
}

struct late_modules {
	int fds[LATE_MAX]; /* owned */
	size_t n;
};

static void module_keep(const char *name, int fd_consume, void *userdata)
{
	struct late_modules *late = userdata;

	if (late->n < LATE_MAX) {
		late->fds[late->n++] = fd_consume;
		return;
	}
	close(fd_consume);
	module_warn(name, E2BIG);
}

/* The modules' files and the program's are memory; nothing needs them any more. */
static void free_initramfs(int old_root)
{
	(void)file_remove_tree_at(old_root, "uvms");
	(void)unlinkat(old_root, "init", 0);
}

void guest_module_load_late(const char *const *lists, const char *dir)
{
	CLEANUP_CLOSE int old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct late_modules late = { 0 };
	pid_t pid;

	for (; *lists; lists++)
		(void)module_each(
			*lists, dir, module_keep, &late); /* a kernel without any has no list */
	pid = fork();
	if (pid == 0) {
		setpriority(PRIO_PROCESS, 0, LATE_NICE);
		usleep(LATE_USEC);
		for (size_t i = 0; i < late.n; i++)
			(void)module_load(late.fds[i]);
		free_initramfs(old_root);
		_exit(0);
	}
	for (size_t i = 0; i < late.n; i++)
		close(late.fds[i]);
}
