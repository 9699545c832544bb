#include "guest-proc.h"

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "guest-creds.h"
#include "guest-path.h"
#include "guest-user.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

/* What the child reports when it did not get as far as the program. */
struct report {
	int error;
	char step[28];
};

/* The child's ends, and all it needs, prepared before fork(). */
struct plan {
	struct guest_user user;
	char **argv, **env; /* owned */
	char *workdir;      /* owned */
	int fds[3];         /* owned; -EBADF keeps the agent's */
	bool tty;
};

static void plan_finish(struct plan *p)
{
	strv_free(p->argv);
	strv_free(p->env);
	free(p->workdir);
	for (size_t i = 0; i < 3; i++)
		p->fds[i] = fd_close(p->fds[i]);
}

/* Of this process: set once, before the first program. */
static struct wire_strv common_env;

void guest_proc_set_environment(const struct wire_strv *v)
{
	common_env = *v;
}

static struct rlimit fd_limit;

void guest_proc_set_fd_limit(const struct rlimit *limit)
{
	fd_limit = *limit;
}

static int strv_from_wire(const struct wire_strv *v, char ***ret)
{
	struct wire_str s;

	for (size_t pos = 0; wire_strv_next(v, &pos, &s);) {
		int r = strv_pushf(ret, "%.*s", (int)s.len, s.s);

		if (r < 0)
			return r;
	}
	return 0;
}

static char **env_find(char **env, const char *name, size_t len)
{
	for (; env && *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return env;
	return NULL;
}

static const char *env_value(char **env, const char *name)
{
	char **e = env_find(env, name, strlen(name));

	return e ? *e + strlen(name) + 1 : NULL;
}

static int env_add(char ***env, const char *assignment)
{
	char **old = env_find(*env, assignment, strcspn(assignment, "="));

	return old ? str_set(old, assignment) : strv_push(env, assignment);
}

static int plan_env(struct plan *p, const struct guest_proc_spec *spec)
{
	CLEANUP(strv_freep) char **given = NULL;
	int r;

	r = strv_from_wire(&common_env, &given);
	if (r == 0)
		r = strv_from_wire(&spec->env, &given);
	if (r == 0)
		r = strv_push(&p->env, "PATH=" GUEST_PATH_DEFAULT);
	if (r == 0)
		r = strv_pushf(&p->env, "HOME=%s", p->user.home);
	if (r == 0 && p->user.name[0])
		r = strv_pushf(&p->env, "USER=%s", p->user.name);
	if (r == 0 && spec->tty)
		r = spec->term.len > 0
			    ? strv_pushf(&p->env, "TERM=%.*s", (int)spec->term.len, spec->term.s)
			    : strv_push(&p->env, "TERM=linux");
	if (r == 0 && guest_creds_directory() && (spec->main || p->user.uid == 0))
		r = strv_pushf(&p->env, "CREDENTIALS_DIRECTORY=%s", guest_creds_directory());
	for (char **e = given; r == 0 && e && *e; e++)
		r = env_add(&p->env, *e);
	return r;
}

static int plan_init(struct plan *p, const struct guest_proc_spec *spec, const char **ret_step)
{
	CLEANUP_FREE char *user = str_printf("%.*s", (int)spec->user.len, str_or(spec->user.s, ""));
	int r;

	*p = (struct plan){ .fds = { -EBADF, -EBADF, -EBADF }, .tty = spec->tty };
	*ret_step = "user";
	r = user ? guest_user_find(user, &p->user) : -ENOMEM;
	if (r < 0)
		return r;
	*ret_step = "memory";
	r = strv_from_wire(&spec->argv, &p->argv);
	if (r == 0)
		r = plan_env(p, spec);
	if (r < 0)
		return r;
	p->workdir = spec->workdir.len > 0
			     ? str_printf("%.*s", (int)spec->workdir.len, spec->workdir.s)
			     : str_printf("/");
	if (!p->workdir || !p->argv)
		return -ENOMEM;
	if (spec->main) {
		/* when it cannot be made, chdir() has the words for it */
		(void)fd_close(file_mkdir_path(p->workdir, 0755));
		*ret_step = "credentials";
		r = guest_creds_give(p->user.uid, p->user.gid);
	}
	return r;
}

static int open_tty(struct guest_proc *proc, struct plan *p, const struct guest_proc_spec *spec)
{
	struct winsize ws = { .ws_row = spec->rows, .ws_col = spec->cols };
	int unlock = 0, slave;

	proc->stdout_fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (proc->stdout_fd < 0 || ioctl(proc->stdout_fd, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	slave = ioctl(proc->stdout_fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return -errno;
	p->fds[0] = slave;
	if (fchown(slave, p->user.uid, (gid_t)-1) < 0 && p->user.uid != getuid())
		return -errno;
	if (spec->rows > 0 && spec->cols > 0)
		ioctl(slave, TIOCSWINSZ, &ws);
	for (size_t i = 1; i < 3; i++)
		if ((p->fds[i] = fcntl(slave, F_DUPFD_CLOEXEC, 3)) < 0)
			return -errno;
	proc->stdin_fd = fcntl(proc->stdout_fd, F_DUPFD_CLOEXEC, 3);
	return proc->stdin_fd < 0 ? -errno : 0;
}

/* The child's end stays blocking. */
static int open_pipe(int *ours, int *theirs, bool we_read)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ours = fds[we_read ? 0 : 1];
	*theirs = fds[we_read ? 1 : 0];
	return fd_set_nonblock(*ours, 1);
}

static int open_null(struct plan *p)
{
	p->fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	return p->fds[0] < 0 ? -errno : 0;
}

static int open_streams(struct guest_proc *proc, struct plan *p, const struct guest_proc_spec *spec)
{
	int r;

	if (spec->tty)
		return open_tty(proc, p, spec);
	r = spec->with_stdin ? open_pipe(&proc->stdin_fd, &p->fds[0], false) : open_null(p);
	if (r < 0 || spec->console)
		return r;
	r = open_pipe(&proc->stdout_fd, &p->fds[1], true);
	return r < 0 ? r : open_pipe(&proc->stderr_fd, &p->fds[2], true);
}

static void child_signals(void)
{
	struct sigaction dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	for (int i = 1; i <= SIGRTMAX; i++)
		sigaction(i, &dfl, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static const char *child_streams(const struct plan *p)
{
	setsid();
	for (int i = 0; i < 3; i++)
		if (p->fds[i] >= 0 && dup2(p->fds[i], i) < 0)
			return "streams";
	if (p->tty && ioctl(0, TIOCSCTTY, 0) < 0)
		return "controlling terminal";
	return NULL;
}

static const char *child_credentials(const struct plan *p)
{
	const struct guest_user *u = &p->user;

	if (geteuid() != 0 && u->uid == geteuid())
		return NULL; /* tests: an ordinary user's agent serves that user */
	if (setgroups(u->n_groups, u->groups) < 0 || setgid(u->gid) < 0 || setuid(u->uid) < 0)
		return "credentials";
	return NULL;
}

static void child_run(const struct plan *p, int status_fd)
{
	struct report report = {};
	const char *step;

	child_signals();
	if (fd_limit.rlim_max > 0)
		setrlimit(RLIMIT_NOFILE, &fd_limit);
	step = child_streams(p);
	if (!step)
		step = child_credentials(p);
	if (!step && chdir(p->workdir) < 0)
		step = "working directory";
	report.error = errno;
	if (!step) {
		const char *path = env_value(p->env, "PATH");

		report.error = guest_path_exec(str_or(path, GUEST_PATH_DEFAULT), p->argv, p->env);
		step = "execute";
	}
	snprintf(report.step, sizeof report.step, "%s", step);
	if (write(status_fd, &report, sizeof report) != (ssize_t)sizeof report)
		_exit(126);
	_exit(127);
}

/* Reads the outcome of execve(), which must be there by now. */
static void guest_proc_outcome(struct guest_proc *p)
{
	struct report report;
	ssize_t n = read(p->status_fd, &report, sizeof report);

	guest_source_stop(&p->status_source);
	p->status_fd = fd_close(p->status_fd);
	if (n != (ssize_t)sizeof report) {
		siginfo_t ending = p->ended_early;

		p->on_started(p);
		if (ending.si_pid > 0)
			p->on_exit(p, &ending);
		return;
	}
	guest_reaper_forget(&p->child);
	p->pid = 0;
	if (str_eq(report.step, "execute"))
		p->on_failed(
			p, (uint8_t)guest_path_exit_code(report.error), report.error, report.step);
	else
		p->on_failed(p, 125, report.error, report.step);
}

static void guest_proc_status_event(struct guest_source *s, uint32_t events)
{
	guest_proc_outcome(GUEST_CONTAINER(s, struct guest_proc, status_source));
}

static void guest_proc_ended(struct guest_child *c, const siginfo_t *ending)
{
	struct guest_proc *p = GUEST_CONTAINER(c, struct guest_proc, child);

	if (p->status_fd >= 0) {
		/* The end overtook the status pipe's event; all that it will tell is in the pipe. */
		p->pid = 0;
		p->ended_early = *ending;
		guest_proc_outcome(p);
		return;
	}
	p->pid = 0;
	p->on_exit(p, ending);
}

int guest_proc_start(struct guest_proc *p, const struct guest_proc_spec *spec, struct guest_loop *l,
	struct guest_reaper *reaper, const char **ret_step)
{
	CLEANUP(plan_finish) struct plan plan;
	CLEANUP_CLOSE int child_status = -EBADF;
	pid_t pid;
	int r;

	p->status_fd = p->stdin_fd = p->stdout_fd = p->stderr_fd = -EBADF;
	p->tty = spec->tty;
	r = plan_init(&plan, spec, ret_step);
	if (r == 0) {
		*ret_step = "streams";
		r = open_streams(p, &plan, spec);
	}
	if (r == 0)
		r = open_pipe(&p->status_fd, &child_status, true);
	if (r < 0) {
		guest_proc_finish(p);
		return r;
	}
	pid = fork();
	if (pid == 0)
		child_run(&plan, child_status);
	if (pid < 0) {
		r = -errno;
		*ret_step = "fork";
		guest_proc_finish(p);
		return r;
	}
	p->pid = p->started_pid = pid;
	guest_reaper_add(reaper, &p->child, pid, guest_proc_ended);
	guest_source_init(&p->status_source, l, p->status_fd, guest_proc_status_event);
	guest_source_set(&p->status_source, EPOLLIN);
	return 0;
}

void guest_proc_finish(struct guest_proc *p)
{
	guest_source_stop(&p->status_source);
	guest_reaper_forget(&p->child);
	p->status_fd = fd_close(p->status_fd);
	p->stdin_fd = fd_close(p->stdin_fd);
	p->stdout_fd = fd_close(p->stdout_fd);
	p->stderr_fd = fd_close(p->stderr_fd);
}

void guest_proc_signal(struct guest_proc *p, int signo, int tty_fd)
{
	pid_t group = 0;

	if (p->pid <= 0)
		return;
	if (p->tty && tty_fd >= 0 && ioctl(tty_fd, TIOCGPGRP, &group) == 0 && group > 1)
		kill(-group, signo);
	else
		kill(-p->pid, signo);
}
