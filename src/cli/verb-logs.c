#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "runtime-dir.h"
#include "str.h"
#include "verb-list.h"

static const char *arg_source = "console";
static bool arg_follow;

static const struct option_def options[] = {
	{ "source", 's', "console|vmm|vsockd|supervisor", OPTION_STRING, &arg_source,
		"whose log; console" },
	{ "follow", 'f', NULL, OPTION_FLAG, &arg_follow, "go on until the VM ends" },
	{ 0 },
};

static const char *log_file(const char *source)
{
	static const char *const files[][2] = {
		{ "console", "console" },
		{ "vmm", "vmm.log" },
		{ "vsockd", "vsockd.log" },
		{ "supervisor", "supervisor.log" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (str_eq(files[i][0], source))
			return files[i][1];
	}
	return NULL;
}

/* Where the logs of NAME are: the live incarnation, else what was kept. *RET_LIVE says which. */
static int open_logs(const char *name, bool *ret_live)
{
	CLEANUP_CLOSE int runtime = vm_dirs_open_runtime(cli_dirs(), name, false);
	CLEANUP_CLOSE int vm = -EBADF;
	int fd = -EBADF;

	*ret_live = true;
	if (runtime >= 0)
		fd = openat(runtime, "current", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0)
		return fd;
	*ret_live = false;
	vm = vm_dirs_open_vm(cli_dirs(), name, false);
	if (vm < 0)
		return vm;
	fd = openat(vm, "last", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -ENODATA : fd;
}

/* Writes what FD has beyond its offset. */
static void print_rest(int fd)
{
	char bytes[16384];
	ssize_t n;

	while ((n = read(fd, bytes, sizeof bytes)) > 0) {
		if (fd_write_all(STDOUT_FILENO, bytes, (size_t)n) < 0)
			_exit(0);
	}
}

/* The segment was moved away and a new one begun: finish the old, open the new. */
static int reopen(int dir, const char *file, int fd)
{
	int next = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd >= 0)
		print_rest(fd);
	if (next < 0)
		return fd;
	fd_close(fd);
	print_rest(next);
	return next;
}

static bool is_current(int dir, const char *file, int fd)
{
	struct stat a, b;

	return fd >= 0 && fstat(fd, &a) == 0 && fstatat(dir, file, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
	       a.st_ino == b.st_ino;
}

/* inotify on the directory by its descriptor: created, changed, and gone when the VM ends. */
static int follow(int dir, const char *file, int start_fd)
{
	CLEANUP_CLOSE int watch = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), fd = start_fd;
	char path[FD_PATH_MAX], events[4096];
	struct stat st;

	if (watch < 0 ||
		inotify_add_watch(watch, fd_path(dir, path),
			IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_DELETE) < 0)
		return -errno;
	for (;;) {
		struct pollfd p = { .fd = watch, .events = POLLIN };

		if (is_current(dir, file, fd))
			print_rest(fd);
		else
			fd = reopen(dir, file, fd);
		if (fstat(dir, &st) < 0 || st.st_nlink == 0)
			return 0;
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -errno;
		while (read(watch, events, sizeof events) > 0)
			;
	}
}

static int print_log(int dir, const char *name, const char *file, bool live)
{
	size_t len;
	CLEANUP_FREE char *text = NULL;
	int fd, r = 0;

	if (arg_follow && live) {
		fd = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		/* the older segment first; the newer one by its descriptor, which then follows */
		CLEANUP_FREE char *old_name = str_printf("%s.1", file);
		CLEANUP_CLOSE int old = openat(dir, old_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

		if (old >= 0)
			print_rest(old);
		r = follow(dir, file, fd);
		if (r < 0)
			return fail(UVMS_EXIT_FAILED, strerror(-r), NULL,
				"%s's log cannot be followed", name);
		return 0;
	}
	text = runtime_dir_log(dir, file, &len);
	if (text)
		r = fd_write_all(STDOUT_FILENO, text, len);
	return r < 0 && r != -EPIPE ? UVMS_EXIT_FAILED : 0;
}

static int run(int argc, char **argv)
{
	const char *file = log_file(arg_source);
	CLEANUP_CLOSE int dir = -EBADF;
	bool live;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (!file)
		return fail(UVMS_EXIT_USAGE, NULL, NULL,
			"--source=%s: it is console, vmm, vsockd or supervisor", arg_source);
	(void)runtime_dir_sweep(cli_dirs(), argv[0]);
	dir = open_logs(argv[0], &live);
	if (dir == -ENODATA)
		return fail(
			UVMS_EXIT_NOT_FOUND, NULL, NULL, "%s never ran: it has no logs", argv[0]);
	if (dir < 0)
		return cli_no_vm(argv[0]);
	return print_log(dir, argv[0], file, live);
}

const struct verb verb_logs = {
	.name = "logs",
	.arguments = "[-f] [--source=console|vmm|vsockd|supervisor] NAME",
	.summary = "show a VM's console or the logs of its processes, also of the stopped",
	.options = options,
	.min = 1,
	.max = 1,
	.run = run,
};
