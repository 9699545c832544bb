#include "spawn.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "pidfd.h"

#ifndef SYS_close_range
#define SYS_close_range 436
#endif

extern char **environ;

static int child_signals(void)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		sigaction(i, &dfl, NULL); /* some cannot be changed: they are default */
	sigemptyset(&none);
	return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static int child_limits(const struct spawn *s)
{
	for (size_t i = 0; i < s->n_limits; i++) {
		struct rlimit l = { s->limits[i].value, s->limits[i].value }, now;

		if (getrlimit((__rlimit_resource_t)s->limits[i].resource, &now) < 0)
			return -errno;
		if (l.rlim_max > now.rlim_max)
			l.rlim_cur = l.rlim_max = now.rlim_max;
		if (setrlimit((__rlimit_resource_t)s->limits[i].resource, &l) < 0)
			return -errno;
	}
	return 0;
}

static int child_identity(const struct spawn *s)
{
	if (s->gid != (gid_t)-1) {
		if (setgroups(s->extra_gid != (gid_t)-1, &s->extra_gid) < 0 ||
			setresgid(s->gid, s->gid, s->gid) < 0)
			return -errno;
	}
	if (s->no_new_privs && s->uid != (uid_t)-1 && s->uid != 0) {
		for (int cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
			prctl(PR_CAPBSET_DROP, cap);
	}
	if (s->uid != (uid_t)-1 && setresuid(s->uid, s->uid, s->uid) < 0)
		return -errno;
	/* after setresuid(), which clears it */
	if (s->death_signal && prctl(PR_SET_PDEATHSIG, s->death_signal) < 0)
		return -errno;
	if (s->no_new_privs && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return 0;
}

/* Moves FD above all numbers in use, out of the way of the numbers that are being assigned. */
static int child_lift(int fd)
{
	int r;

	if (fd < 0)
		fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = fcntl(fd, F_DUPFD_CLOEXEC, 3 + SPAWN_FDS_MAX);
	if (r < 0) /* EINVAL: the limit is below that number */
		return errno == EINVAL ? -EMFILE : -errno;
	return r;
}

/* dup2() clears CLOEXEC: exactly the descriptors 0 … 2 + n_fds survive. */
static int child_fds(const struct spawn *s, int *status_fd)
{
	int lifted[3 + SPAWN_FDS_MAX];
	size_t n = 3 + s->n_fds;
	int r;

	r = child_lift(*status_fd);
	if (r < 0)
		return r;
	*status_fd = r;
	lifted[0] = child_lift(s->stdin_fd);
	lifted[1] = child_lift(s->stdout_fd);
	lifted[2] = child_lift(s->stderr_fd);
	for (size_t i = 0; i < s->n_fds; i++)
		lifted[3 + i] = s->fds[i] < 0 ? -EBADF : child_lift(s->fds[i]);
	for (size_t i = 0; i < n; i++) {
		if (lifted[i] < 0 && (i < 3 || s->fds[i - 3] >= 0))
			return lifted[i];
		if (lifted[i] >= 0 && dup2(lifted[i], (int)i) < 0)
			return -errno;
	}
	/* everything above becomes CLOEXEC instead of closed: the status pipe lives until exec */
	if (syscall(SYS_close_range, (unsigned)n, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */) < 0)
		return -errno;
	return 0;
}

/*
 * PROGRAM is the file itself, opened while we were still who we were: a build directory below /root is
 * closed to a VM's uid. Second choice only, as such a process is called by a number in /proc/PID/comm.
 */
static int child_replace(const struct spawn *s, int program)
{
	char *const *argv = (char *const *)s->argv;
	char *const *env = s->env ? (char *const *)s->env : environ;

	execvpe(s->path, argv, env);
	if (errno != EACCES || program < 0)
		return -errno;
	syscall(SYS_execveat, program, "", argv, env, AT_EMPTY_PATH);
	return -errno;
}

static int child_exec(const struct spawn *s, int *status_fd)
{
	int program = -EBADF, r;

	if (s->cwd_fd >= 0 && fchdir(s->cwd_fd) < 0)
		return -errno;
	if (!s->keep_session && setsid() < 0)
		return -errno;
	r = child_signals();
	if (r < 0)
		return r;
	r = child_fds(s, status_fd);
	if (r < 0)
		return r;
	r = child_limits(s);
	if (r < 0)
		return r;
	for (int bit = 0; bit < 31; bit++) {
		if (s->unshare_flags & 1 << bit)
			(void)unshare(1 << bit);
	}
	if (s->uid != (uid_t)-1 && strchr(s->path, '/'))
		program = open(s->path, O_PATH | O_CLOEXEC);
	r = child_identity(s);
	return r < 0 ? r : child_replace(s, program);
}

int spawn_process(const struct spawn *s, pid_t *ret_pid, int *ret_pidfd)
{
	CLEANUP_CLOSE int reader = -EBADF, pidfd = -EBADF;
	int pipefd[2], error = 0;
	pid_t pid;
	ssize_t n;

	assert(s->n_fds <= SPAWN_FDS_MAX);
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	reader = pipefd[0];
	pid = fork();
	if (pid < 0) {
		error = -errno;
		close(pipefd[1]);
		return error;
	}
	if (pid == 0) {
		error = child_exec(s, &pipefd[1]);
		fd_write_all(pipefd[1], &error, sizeof error);
		_exit(127);
	}
	close(pipefd[1]);
	pidfd = pidfd_open_pid(pid);
	n = fd_read_full(reader, &error, sizeof error);
	if (pidfd < 0 || n != 0) {
		if (n != sizeof error)
			kill(pid, SIGKILL); /* our own unreaped child: the number is safe */
		waitpid(pid, NULL, 0);
		return pidfd < 0 ? pidfd : n == sizeof error ? error : -EIO;
	}
	if (ret_pid)
		*ret_pid = pid;
	*ret_pidfd = TAKE_FD(pidfd);
	return 0;
}

struct apart_answer {
	int r;
	uint8_t bytes[SPAWN_APART_MAX];
};

/* In the child. Less than PIPE_BUF is written, so nobody need read meanwhile. */
static void apart_work(pid_t parent, int writer, int (*work)(void *, void *), void *arg)
{
	struct apart_answer a = { 0 };

	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
		return;
	a.r = work(arg, a.bytes);
	fd_write_all(writer, &a, sizeof a);
}

/* Blocks. 0: it ended in order. */
static int apart_wait(int pidfd)
{
	siginfo_t end;

	do {
		while (waitid(P_PIDFD, (id_t)pidfd, &end, WEXITED | WSTOPPED) < 0) {
			/* SIGCHLD is ignored: it has ended, and its answer says how */
			if (errno == ECHILD)
				return 0;
			if (errno != EINTR)
				return -errno;
		}
		if (end.si_code == CLD_STOPPED)
			pidfd_signal(pidfd, SIGKILL);
	} while (end.si_code == CLD_STOPPED);
	return end.si_code == CLD_EXITED ? 0 : -ECHILD;
}

int spawn_apart(int (*work)(void *arg, void *answer), void *arg, void *out, size_t len)
{
	CLEANUP_CLOSE int reader = -EBADF, writer = -EBADF, pidfd = -EBADF;
	pid_t parent = getpid(), pid;
	struct apart_answer a;
	int pipefd[2], r;
	ssize_t n;

	assert(len <= sizeof a.bytes);
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	reader = pipefd[0];
	writer = pipefd[1];
	pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0) {
		apart_work(parent, writer, work, arg);
		_exit(0);
	}
	writer = fd_close(writer);
	pidfd = pidfd_open_pid(pid);
	if (pidfd < 0) {
		kill(pid, SIGKILL); /* our own unreaped child: the number is safe */
		waitpid(pid, NULL, 0);
		return pidfd;
	}
	r = apart_wait(pidfd);
	if (r < 0)
		return r;
	n = fd_read_full(reader, &a, sizeof a);
	if (n != sizeof a)
		return n < 0 ? (int)n : -ECHILD;
	if (a.r == 0)
		memcpy(out, a.bytes, len);
	return a.r;
}

int spawn_wait(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	siginfo_t end;
	int r;

	do {
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return -errno;
		r = pidfd_reap(pidfd, &end);
	} while (r == 0);
	if (r < 0)
		return r;
	return end.si_code == CLD_EXITED ? end.si_status : 128 + end.si_status;
}
