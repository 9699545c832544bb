#include "tool.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "path.h"
#include "pidfd.h"
#include "spawn.h"
#include "str.h"

#define TOOL_TAIL 1500 /* bytes of standard error in a reason */

extern char **environ;

static const struct {
	const char *tool, *package;
} tool_packages[] = {
	{ "mkfs.erofs", "erofs-utils" },
	{ "mkfs.ext4", "e2fsprogs" },
	{ "fsck.erofs", "erofs-utils" },
	{ "dump.erofs", "erofs-utils" },
	{ "mmdebstrap", "mmdebstrap" },
	{ "newuidmap", "uidmap" },
	{ "unshare", "util-linux" },
	{ "tar", "tar" },
	{ "dpkg-deb", "dpkg" },
	{ "apt-get", "apt" },
	{ "apt-cache", "apt" },
};

static const char *tool_package(const char *tool)
{
	for (size_t i = 0; i < ARRAY_SIZE(tool_packages); i++) {
		if (str_eq(tool_packages[i].tool, tool))
			return tool_packages[i].package;
	}
	return tool;
}

static int tool_find(const char *name, char **ret, char **ret_reason)
{
	int r = path_find_program(name, ret);

	if (r != -ENOENT)
		return r;
	*ret_reason =
		str_printf("%s is not installed: apt install %s, or your system's package of it",
			name, tool_package(name));
	return -ENOPKG;
}

int tool_require(const char *const *names, char **ret_reason)
{
	for (; *names; names++) {
		CLEANUP_FREE char *path = NULL;
		int r = tool_find(*names, &path, ret_reason);

		if (r < 0)
			return r;
	}
	return 0;
}

static void tool_signal_set(sigset_t *ret)
{
	sigemptyset(ret);
	sigaddset(ret, SIGINT);
	sigaddset(ret, SIGTERM);
	sigaddset(ret, SIGHUP);
}

void tool_signals_hold(sigset_t *ret_before)
{
	sigset_t set;

	tool_signal_set(&set);
	sigprocmask(SIG_BLOCK, &set, ret_before);
}

void tool_signals_release(const sigset_t *before)
{
	sigprocmask(SIG_SETMASK, before, NULL);
}

/* The exit status, or -EINTR when a signal came: the tool is told once, and its end is awaited. */
static int tool_wait(int pidfd)
{
	CLEANUP_CLOSE int signals = -EBADF;
	bool interrupted = false;
	sigset_t set;
	int r;

	tool_signal_set(&set);
	signals = signalfd(-1, &set, SFD_CLOEXEC);
	if (signals < 0)
		return -errno;
	for (;;) {
		struct pollfd p[] = { { pidfd, POLLIN, 0 }, { signals, POLLIN, 0 } };
		struct signalfd_siginfo si;

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			return -errno;
		if (p[0].revents)
			break;
		if (p[1].revents && read(signals, &si, sizeof si) == sizeof si) {
			interrupted = true;
			(void)pidfd_signal(pidfd, SIGTERM);
		}
	}
	r = spawn_wait(pidfd);
	return interrupted ? -EINTR : r;
}

static char *tool_tail(int fd)
{
	char text[TOOL_TAIL + 1];
	off_t end = lseek(fd, 0, SEEK_END);
	off_t from = end > TOOL_TAIL ? end - TOOL_TAIL : 0;
	ssize_t n = pread(fd, text, TOOL_TAIL, from);
	char *start = text;

	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
		n--;
	text[n > 0 ? n : 0] = 0;
	if (from > 0 && strchr(text, '\n'))
		start = strchr(text, '\n') + 1;
	return strdup(start);
}

static int tool_failed(const char *name, int status, int errors, char **ret_reason)
{
	CLEANUP_FREE char *tail = tool_tail(errors);

	*ret_reason = str_printf("%s failed (status %d)%s%s", name, status,
		tail && *tail ? ", saying:\n" : "", str_or(tail, ""));
	return -EIO;
}

static const char *const tool_map[] = { "unshare", "--map-root-user", "--map-auto", "--", NULL };

static char **tool_command(const struct tool *t, const char *path)
{
	CLEANUP(strv_freep) char **v = NULL;

	for (const char *const *w = tool_map; t->mapped && *w; w++) {
		if (strv_push(&v, *w) < 0)
			return NULL;
	}
	if (strv_push(&v, path) < 0)
		return NULL;
	for (const char *const *w = t->argv + 1; *w; w++) {
		if (strv_push(&v, *w) < 0)
			return NULL;
	}
	return TAKE_PTR(v);
}

int tool_run(const struct tool *t, char **ret_reason)
{
	CLEANUP_CLOSE int errors = fd_memfd("uvms-tool-errors"), pidfd = -EBADF;
	CLEANUP(strv_freep) char **command = NULL;
	CLEANUP_FREE char *path = NULL;
	sigset_t before;
	int r;

	if (errors < 0)
		return errors;
	r = tool_find(t->argv[0], &path, ret_reason);
	if (r < 0)
		return r;
	command = tool_command(t, path);
	if (!command)
		return -ENOMEM;
	struct spawn s = { SPAWN_DEFAULTS, .path = command[0], .argv = (const char *const *)command,
		.env = t->env, .stdin_fd = t->stdin_fd, .stdout_fd = t->stdout_fd,
		.stderr_fd = errors, .cwd_fd = t->cwd_fd, .fds = &t->fd, .n_fds = t->fd >= 0,
		.death_signal = SIGTERM };
	tool_signals_hold(&before);
	r = spawn_process(&s, NULL, &pidfd);
	if (r >= 0)
		r = tool_wait(pidfd);
	tool_signals_release(&before);
	return r > 0 ? tool_failed(t->argv[0], r, errors, ret_reason) : r;
}

int tool_remove_mapped(int parent, const char *name)
{
	CLEANUP_FREE char *reason = NULL;

	return tool_run(&(struct tool){ TOOL_DEFAULTS, .cwd_fd = parent, .mapped = true,
				.argv = (const char *[]){ "rm", "-rf", "--", name, NULL } },
		&reason);
}

char **tool_env(const char *const *settings)
{
	CLEANUP(strv_freep) char **v = NULL;

	/* getenv() takes the first of two: ours */
	for (; *settings; settings++) {
		if (strv_push(&v, *settings) < 0)
			return NULL;
	}
	for (char **e = environ; *e; e++) {
		bool ours = false;

		for (char **o = v; o && *o && !ours; o++)
			ours = strncmp(*o, *e, strcspn(*o, "=") + 1) == 0;
		if (!ours && strv_push(&v, *e) < 0)
			return NULL;
	}
	return TAKE_PTR(v);
}
