#include "sv-children.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "pidfd.h"
#include "spawn.h"
#include "str.h"
#include "sv.h"
#include "vm-plan.h"

void sv_child_init(struct sv_child *c, struct sv *sv, const char *name, int on_end)
{
	*c = (struct sv_child){ .sv = sv,
		.name = name,
		.on_end = (enum sv_happening)on_end,
		.pidfd = -EBADF,
		.output_fd = -EBADF,
		.log = { .fd = -EBADF } };
}

bool sv_child_is_running(const struct sv_child *c)
{
	return c->pidfd >= 0;
}

/* False at the end of the output. */
static bool child_drain(struct sv_child *c)
{
	char text[4096];
	ssize_t n = read(c->output_fd, text, sizeof text);

	if (n > 0)
		sv_logfile_write(&c->log, text, (size_t)n);
	return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

static int child_on_output(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv_child *c = userdata;

	if (!child_drain(c))
		c->output_source = sd_event_source_disable_unref(c->output_source);
	return 0;
}

static void child_reaped(struct sv_child *c)
{
	c->is_stopped = false;
	if (str_eq(c->sv->status.stopped, c->name))
		(void)str_set(&c->sv->status.stopped, NULL);
	c->has_ended = true;
	c->grace = sd_event_source_disable_unref(c->grace);
	c->exit_source = sd_event_source_disable_unref(c->exit_source);
	c->pidfd = fd_close(c->pidfd);
}

static int child_on_exit(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv_child *c = userdata;
	char text[128], cause[192];

	if (pidfd_reap(c->pidfd, &c->end) == 0)
		return 0;
	child_reaped(c);
	if (c->ended) {
		c->ended(c);
		return 0;
	}
	snprintf(cause, sizeof cause, "%s %s", c->name, sv_child_describe(c, text, sizeof text));
	sv_happen(c->sv, c->on_end, cause);
	return 0;
}

static int child_watch(struct sv_child *c)
{
	int r = 0;

	if (c->pidfd >= 0)
		r = sd_event_add_io(
			c->sv->event, &c->exit_source, c->pidfd, EPOLLIN, child_on_exit, c);
	/* what it said on its channels before it ended comes first: a power-off is no crash */
	if (r >= 0 && c->exit_source)
		r = sd_event_source_set_priority(c->exit_source, SD_EVENT_PRIORITY_NORMAL + 1);
	if (r >= 0 && c->output_fd >= 0)
		r = sd_event_add_io(
			c->sv->event, &c->output_source, c->output_fd, EPOLLIN, child_on_output, c);
	return r;
}

/* A log that cannot be opened is lost, not the VM. */
int sv_child_resume(struct sv_child *c)
{
	char name[32];

	if (c->pid == 0)
		return 0;
	snprintf(name, sizeof name, "%s.log", c->name);
	(void)sv_logfile_resume(&c->log, c->sv->dir_fd, name);
	return child_watch(c);
}

int sv_child_start(struct sv_child *c, struct spawn *spawn)
{
	CLEANUP_CLOSE int writer = -EBADF;
	int pair[2], fds[SPAWN_FDS_MAX], r;
	char name[32];

	snprintf(name, sizeof name, "%s.log", c->name);
	r = c->log.fd >= 0 ? 0 : sv_logfile_init(&c->log, c->sv->dir_fd, name);
	if (r < 0)
		return r;
	c->has_ended = false;
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	c->output_fd = pair[0];
	writer = pair[1];
	r = fd_set_nonblock(c->output_fd, 1);
	if (r < 0)
		return r;
	for (size_t i = 0; i < spawn->n_fds; i++)
		fds[i] = spawn->fds[i];
	fds[spawn->n_fds] = c->sv->runtime.lock_fd;
	spawn->fds = fds;
	spawn->n_fds++;
	spawn->stderr_fd = writer;
	if (spawn->stdout_fd < 0)
		spawn->stdout_fd = writer;
	r = spawn_process(spawn, &c->pid, &c->pidfd);
	return r < 0 ? r : child_watch(c);
}

const char **sv_child_arguments(const struct vm_step *step, const char *place, const char *value)
{
	size_t n = strv_length(step->args);
	const char **argv = calloc(n + 1, sizeof *argv);

	for (size_t i = 0; argv && i < n; i++)
		argv[i] = str_eq(step->args[i], place) ? value : step->args[i];
	return argv;
}

void sv_child_signal(struct sv_child *c, int signo)
{
	if (c->pidfd >= 0)
		(void)pidfd_signal(c->pidfd, signo);
}

void sv_child_confine(struct sv_child *c, struct spawn *spawn)
{
	struct sv *sv = c->sv;

	spawn->no_new_privs = true;
	spawn->death_signal = SIGKILL;
	spawn->cwd_fd = sv->dir_fd;
	if (geteuid() == 0)
		spawn->uid = spawn->gid = sv->status.uid;
	/* for an ordinary user only inside the user namespace that the plan's step made */
	spawn->unshare_flags = CLONE_NEWNET | CLONE_NEWIPC;
}

bool sv_child_has_ended(const struct sv_child *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	return c->has_ended || (c->pidfd >= 0 && poll(&p, 1, 0) > 0);
}

static void child_wait(struct sv_child *c)
{
	struct pollfd p = { .fd = c->pidfd, .events = POLLIN };

	for (int i = 0; i < 20 && c->pidfd >= 0; i++) {
		poll(&p, 1, 100);
		if (pidfd_reap(c->pidfd, &c->end) != 0)
			child_reaped(c);
	}
}

void sv_child_catch_up(struct sv_child *c)
{
	struct pollfd p = { .fd = c->output_fd, .events = POLLIN };

	for (int i = 0; i < 64 && c->output_source && poll(&p, 1, 0) > 0 && child_drain(c); i++)
		;
}

void sv_child_again(struct sv_child *c)
{
	sv_child_catch_up(c);
	c->output_source = sd_event_source_disable_unref(c->output_source);
	c->output_fd = fd_close(c->output_fd);
}

void sv_child_move(struct sv_child *to, struct sv_child *from)
{
	struct sv_child idle = *from;
	struct sv_logfile log = to->log;
	char name[sizeof log.name];

	sv_child_init(&idle, from->sv, from->name, from->on_end);
	sv_logfile_finish(&from->log);
	sv_logfile_finish(&log);
	memcpy(name, log.name, sizeof name);
	*to = *from;
	/* as it is after what both have written */
	(void)sv_logfile_resume(&to->log, log.dir_fd, name);
	to->log.dropped_bytes = log.dropped_bytes;
	to->log.gap_bytes = log.gap_bytes;
	sd_event_source_set_userdata(to->exit_source, to);
	sd_event_source_set_userdata(to->output_source, to);
	*from = idle;
}

void sv_child_finish(struct sv_child *c)
{
	if (c->pidfd >= 0) {
		sv_child_signal(c, SIGKILL);
		child_wait(c);
	}
	sv_child_catch_up(c);
	c->grace = sd_event_source_disable_unref(c->grace);
	c->exit_source = sd_event_source_disable_unref(c->exit_source);
	c->output_source = sd_event_source_disable_unref(c->output_source);
	c->output_fd = fd_close(c->output_fd);
	c->pidfd = fd_close(c->pidfd);
	sv_logfile_finish(&c->log);
}

const char *sv_child_describe(const struct sv_child *c, char *buf, size_t size)
{
	if (c->end.si_code == CLD_EXITED)
		snprintf(buf, size, "exited with status %d", c->end.si_status);
	else if (c->end.si_code == CLD_KILLED || c->end.si_code == CLD_DUMPED)
		snprintf(buf, size, "was killed by signal %d (%s)%s", c->end.si_status,
			strsignal(c->end.si_status),
			c->end.si_status == SIGSYS ? ": its seccomp filter" : "");
	else
		snprintf(buf, size, "still runs");
	return buf;
}
