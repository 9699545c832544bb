#include "guest-agent.h"

#include "cleanup.h"
#include "fd.h"
#include "guest-conn.h"
#include "guest-cpus.h"
#include "guest-freeze.h"
#include "guest-home.h"
#include "guest-link.h"
#include "guest-mount.h"
#include "guest-ready.h"
#include "guest-stop.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>

#define FDS_WANTED       (GUEST_CONN_FDS + 2 * GUEST_FORWARD_MAX)
#define STOP_MS          5000 /* SIGTERM to SIGKILL, unless STOP says otherwise */
#define STOP_MAX_MS      3600 * 1000
#define LAST_MS          1000      /* for the last words after the last process */
#define FIRST_WELCOME_MS 60 * 1000 /* COMMAND mode: nothing can be run before it */

struct guest_agent {
	const struct guest_agent_config *config; /* borrowed */
	struct guest_loop loop;
	struct guest_reaper reaper;
	struct guest_conn_set conns;
	struct guest_home home;
	struct guest_ready ready;
	struct guest_proc command;
	struct guest_source signals;
	struct guest_cpus cpus;
	struct guest_link link;
	struct guest_mount mount;
	struct guest_freeze freeze;
	struct guest_timer timer; /* the deadline of the present phase */
	struct guest_timer check; /* looks whether a stop has anything to wait for */
	int signal_fd;            /* owned */
	bool begun, stopping;
	uint8_t ending; /* enum agent_wire_stop; 0: none yet */
};

static void agent_end(struct guest_agent *a, uint8_t how)
{
	a->ending = how;
	guest_home_end(&a->home);
}

static void agent_home_closed(void *user)
{
	struct guest_agent *a = user;

	a->loop.quit = true;
}

/* ---- stop ---- */

static void agent_kill(struct guest_agent *a, int signo)
{
	struct guest_child *c;

	if (a->config->mode == GUEST_AGENT_COMMAND) {
		kill(-1, signo);
		return;
	}
	LIST_FOREACH(c, &a->reaper.children, link)
	kill(-c->pid, signo);
}

static void agent_last_words_over(struct guest_timer *t)
{
	struct guest_agent *a = GUEST_CONTAINER(t, struct guest_agent, timer);

	agent_end(a, a->ending);
}

static void agent_stop_deadline(struct guest_timer *t)
{
	struct guest_agent *a = GUEST_CONTAINER(t, struct guest_agent, timer);

	agent_kill(a, SIGKILL);
	guest_timer_arm(&a->timer, &a->loop, LAST_MS, agent_last_words_over);
}

/* After the last process: sessions still have their EXIT to bring out. */
static void agent_check_stopped(struct guest_agent *a, bool have_children)
{
	if (!a->stopping || have_children)
		return;
	if (a->conns.sessions.n == 0)
		agent_end(a, a->ending);
	else
		guest_timer_arm(&a->timer, &a->loop, LAST_MS, agent_last_words_over);
}

/* Later than STOP itself, so that its DONE goes out first. */
static void agent_first_check(struct guest_timer *t)
{
	struct guest_agent *a = GUEST_CONTAINER(t, struct guest_agent, check);

	agent_check_stopped(a, guest_reaper_run(&a->reaper));
}

static int agent_stop(void *user, uint8_t mode, uint32_t deadline_ms)
{
	struct guest_agent *a = user;

	if (a->config->mode == GUEST_AGENT_SYSTEM)
		return guest_stop_ask_init(mode);
	if (a->stopping)
		return -EALREADY;
	a->stopping = true;
	a->ending = mode;
	if (deadline_ms == 0)
		deadline_ms = STOP_MS;
	guest_timer_arm(&a->timer, &a->loop, deadline_ms < STOP_MAX_MS ? deadline_ms : STOP_MAX_MS,
		agent_stop_deadline);
	agent_kill(a, SIGTERM);
	guest_timer_arm(&a->check, &a->loop, 0, agent_first_check);
	return 0;
}

static void agent_network(void *user, const struct boot_desc_network *n)
{
	struct guest_agent *a = user;

	/* tests: the host's own interfaces are no business of theirs */
	if (a->config->mode == GUEST_AGENT_TEST)
		guest_home_answer(&a->home, AGENT_WIRE_NETWORK, EPERM);
	else
		guest_link_set_up(&a->link, n);
}

static void agent_link_done(void *user, int error)
{
	struct guest_agent *a = user;

	guest_home_answer(&a->home, AGENT_WIRE_NETWORK, error);
}

static void agent_mount(void *user, const struct agent_wire_msg *m)
{
	struct guest_agent *a = user;

	/* tests: nor are its mounts */
	if (a->config->mode == GUEST_AGENT_TEST)
		guest_home_answer(&a->home, m->type, EPERM);
	else
		guest_mount_ask(&a->mount, m);
}

static void agent_mount_done(void *user, uint8_t request, int error)
{
	struct guest_agent *a = user;

	guest_home_answer(&a->home, request, error);
}

/* ---- a snapshot ---- */

static void agent_frozen(void *user, int error, const char *who)
{
	struct guest_agent *a = user;

	if (error)
		guest_stop_warn("the guest's programs cannot be frozen: %s%s%s", strerror(-error),
			*who ? ": " : "", who);
	if (error)
		guest_conn_set_hold(&a->conns, false);
	guest_home_frozen(&a->home, error);
}

static int agent_freeze(void *user)
{
	struct guest_agent *a = user;
	int r;

	/* what would be started now would be one that is not frozen */
	guest_conn_set_hold(&a->conns, true);
	/* a test's programs are not the guest's */
	r = a->config->mode == GUEST_AGENT_TEST ? -EALREADY : guest_freeze_start(&a->freeze);
	if (r == -EALREADY && !a->freeze.is_waiting) {
		guest_home_frozen(&a->home, 0);
		return 0;
	}
	if (r < 0 && r != -EALREADY)
		guest_conn_set_hold(&a->conns, false);
	return r == -EALREADY ? 0 : r;
}

static int agent_thaw(void *user)
{
	struct guest_agent *a = user;
	int r = guest_freeze_thaw(&a->freeze);

	guest_conn_set_hold(&a->conns, false);
	return r;
}

static void agent_main_over(void *user)
{
	struct guest_agent *a = user;

	if (a->config->mode == GUEST_AGENT_SYSTEM) {
		guest_stop_ask_init(AGENT_STOP_POWEROFF);
		return;
	}
	if (a->ending == 0)
		a->ending = AGENT_STOP_POWEROFF;
	a->loop.quit = true;
}

/* ---- the boot description's command ---- */

static void agent_command_over(struct guest_agent *a, uint8_t kind, uint32_t code, bool core)
{
	guest_home_send(&a->home, &(struct agent_wire_msg){ .type = AGENT_WIRE_MAIN_EXIT,
					  .exit = { kind, code, core } });
	agent_end(a, a->ending ? a->ending : AGENT_STOP_POWEROFF);
}

static void agent_command_started(struct guest_proc *p)
{
	struct guest_agent *a = GUEST_CONTAINER(p, struct guest_agent, command);

	guest_home_ready(&a->home, AGENT_READY_COMMAND, "");
}

static void agent_command_failed(struct guest_proc *p, uint8_t code, int error, const char *step)
{
	struct guest_agent *a = GUEST_CONTAINER(p, struct guest_agent, command);

	guest_stop_warn("cannot start the command: %s: %s", step, strerror(error));
	agent_command_over(a, AGENT_EXITED, code, false);
}

static void agent_command_exited(struct guest_proc *p, const siginfo_t *ending)
{
	struct guest_agent *a = GUEST_CONTAINER(p, struct guest_agent, command);

	agent_command_over(a, ending->si_code == CLD_EXITED ? AGENT_EXITED : AGENT_SIGNALED,
		(uint32_t)ending->si_status & 0xff, ending->si_code == CLD_DUMPED);
}

static void agent_start_command(struct guest_agent *a)
{
	const char *step;
	int r;

	a->command.on_started = agent_command_started;
	a->command.on_failed = agent_command_failed;
	a->command.on_exit = agent_command_exited;
	r = guest_proc_start(&a->command, a->config->command, &a->loop, &a->reaper, &step);
	if (r < 0)
		agent_command_failed(&a->command, 125, -r, step);
}

/* ---- readiness ---- */

static void agent_system_ready(void *user, bool degraded, const char *failed_units)
{
	struct guest_agent *a = user;

	guest_home_ready(
		&a->home, degraded ? AGENT_READY_DEGRADED : AGENT_READY_RUNNING, failed_units);
}

static void agent_begin(struct guest_agent *a)
{
	if (a->config->command)
		agent_start_command(a);
	else if (a->config->mode != GUEST_AGENT_SYSTEM)
		guest_home_ready(&a->home, AGENT_READY_COMMAND, "");
	else if (a->config->ready_probe && guest_stop_has_systemd())
		guest_ready_start(&a->ready);
	else
		guest_home_ready(&a->home, AGENT_READY_RUNNING, "");
}

static void agent_welcomed(void *user)
{
	struct guest_agent *a = user;

	if (a->begun)
		return;
	a->begun = true;
	guest_timer_stop(&a->timer);
	agent_begin(a);
}

static void agent_no_welcome(struct guest_timer *t)
{
	guest_stop_fatal(
		"the host did not answer the call home within %d s", FIRST_WELCOME_MS / 1000);
}

/* ---- signals ---- */

static void agent_signal(struct guest_source *s, uint32_t events)
{
	struct guest_agent *a = GUEST_CONTAINER(s, struct guest_agent, signals);
	struct signalfd_siginfo si;

	if (read(a->signal_fd, &si, sizeof si) != (ssize_t)sizeof si)
		return;
	if (si.ssi_signo == SIGCHLD)
		agent_check_stopped(a, guest_reaper_run(&a->reaper));
	else if (a->config->mode == GUEST_AGENT_SYSTEM)
		a->loop.quit = true;
	else
		agent_stop(a, AGENT_STOP_POWEROFF, 0);
}

static int agent_signals_init(struct guest_agent *a)
{
	sigset_t mask;

	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	a->signal_fd = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	if (a->signal_fd < 0)
		return -errno;
	guest_source_init(&a->signals, &a->loop, a->signal_fd, agent_signal);
	guest_source_set(&a->signals, EPOLLIN);
	(void)guest_cpus_init(&a->cpus, &a->loop);
	if (a->config->mode == GUEST_AGENT_COMMAND)
		reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del becomes SIGINT */
	return 0;
}

/* ---- life ---- */

static struct guest_session_home agent_home_standing(void *user)
{
	const struct guest_home *h = &((struct guest_agent *)user)->home;

	return (struct guest_session_home){ h->is_welcome, h->lost_usec, h->welcome_usec };
}

/* Forwards need many descriptors; what it starts gets the limit that it found. */
static void agent_raise_limit(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	guest_proc_set_fd_limit(&lim);
	if (lim.rlim_cur >= FDS_WANTED)
		return;
	lim.rlim_cur = lim.rlim_max < FDS_WANTED ? lim.rlim_max : FDS_WANTED;
	setrlimit(RLIMIT_NOFILE, &lim);
}

static int agent_listen(struct guest_agent *a)
{
	int fd = guest_transport_listen(&a->config->transport);

	if (fd < 0)
		return fd;
	a->conns.loop = &a->loop;
	a->conns.reaper = &a->reaper;
	a->conns.secret = a->config->secret;
	a->conns.main_over = a->conns.sessions.main_over = agent_main_over;
	a->conns.sessions.home = agent_home_standing;
	a->conns.user = a->conns.sessions.user = a;
	return guest_conn_set_init(&a->conns, fd);
}

static void agent_call_home(struct guest_agent *a)
{
	a->home.loop = &a->loop;
	a->home.transport = &a->config->transport;
	a->home.secret = a->config->secret;
	a->home.leave_clock = a->config->mode == GUEST_AGENT_TEST;
	a->home.welcomed = agent_welcomed;
	a->home.stop = agent_stop;
	a->home.network = agent_network;
	a->home.mount = agent_mount;
	a->home.freeze = agent_freeze;
	a->home.thaw = agent_thaw;
	a->home.closed = agent_home_closed;
	a->home.user = a;
	if (a->config->mode == GUEST_AGENT_COMMAND)
		guest_timer_arm(&a->timer, &a->loop, FIRST_WELCOME_MS, agent_no_welcome);
	guest_home_start(&a->home);
}

static void agent_finish(struct guest_agent *a)
{
	guest_timer_stop(&a->timer);
	guest_timer_stop(&a->check);
	(void)guest_freeze_thaw(&a->freeze);
	guest_ready_finish(&a->ready);
	guest_proc_finish(&a->command);
	guest_home_finish(&a->home);
	guest_conn_set_finish(&a->conns);
	guest_cpus_finish(&a->cpus);
	guest_link_finish(&a->link);
	guest_mount_finish(&a->mount);
	guest_source_stop(&a->signals);
	a->signal_fd = fd_close(a->signal_fd);
	guest_loop_finish(&a->loop);
}

static void agent_init(struct guest_agent *a, const struct guest_agent_config *config)
{
	const struct guest_proc none = {
		.status_fd = -EBADF, .stdin_fd = -EBADF, .stdout_fd = -EBADF, .stderr_fd = -EBADF
	};

	*a = (struct guest_agent){ .config = config,
		.signal_fd = -EBADF,
		.cpus.fd = -EBADF,
		.link = { .loop = &a->loop, .done = agent_link_done, .user = a, .fd = -EBADF },
		.mount = { .loop = &a->loop,
			.reaper = &a->reaper,
			.done = agent_mount_done,
			.user = a },
		.command = none,
		.ready = { .fd = -EBADF, .proc = none },
		.home.fd = -EBADF,
		.conns.fd = -EBADF };
	guest_freeze_init(&a->freeze);
	a->freeze.loop = &a->loop;
	a->freeze.done = agent_frozen;
	a->freeze.user = a;
	a->ready.loop = &a->loop;
	a->ready.reaper = &a->reaper;
	a->ready.done = agent_system_ready;
	a->ready.user = a;
	LIST_INIT(&a->reaper.children);
}

int guest_agent_run(const struct guest_agent_config *config)
{
	CLEANUP(agent_finish) struct guest_agent a;
	int r;

	agent_init(&a, config);
	agent_raise_limit();
	r = guest_loop_init(&a.loop);
	if (r == 0)
		r = agent_signals_init(&a);
	if (r == 0)
		r = agent_listen(&a);
	if (r < 0)
		return r;
	agent_call_home(&a);
	if (config->while_calling)
		config->while_calling(config->while_calling_data);
	r = guest_loop_run(&a.loop);
	return r < 0 ? r : a.ending;
}
