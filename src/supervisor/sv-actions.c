#include "sv-actions.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "config.h"
#include "fd.h"
#include "log.h"
#include "str.h"
#include "sv-agent.h"
#include "sv-change.h"
#include "sv-children.h"
#include "sv-console.h"
#include "sv-control.h"
#include "sv-dialed.h"
#include "sv-events.h"
#include "sv-link.h"
#include "sv-net.h"
#include "sv-plan.h"
#include "sv-share.h"
#include "sv-steps.h"
#include "sv-update.h"
#include "sv-vmm.h"
#include "sv-vsockd.h"
#include "sv.h"
#include "vm-lease.h"

#define UP_USEC     (UINT64_C(30) * 1000000)
#define BUTTON_USEC (UINT64_C(10) * 1000000)
#define QUIT_USEC   (UINT64_C(3) * 1000000)
#define KILL_USEC   (UINT64_C(5) * 1000000)
#define LINGER_USEC (UINT64_C(500) * 1000)

void sv_status_save(struct sv *sv)
{
	if (sv->dir_fd < 0)
		return;
	if (str_set(&sv->status.state, sv_fsm_state_name(sv->state)) == 0)
		(void)vm_status_write_at(sv->dir_fd, "status", &sv->status);
	sd_notifyf(0, "STATUS=%s", sv_fsm_state_name(sv->state));
}

const char *sv_version(void)
{
	return UVMS_VERSION;
}

void sv_blame(struct sv *sv, const char *outcome, const char *format, ...)
{
	char *text = NULL;
	va_list ap;

	if (sv->status.outcome)
		return;
	va_start(ap, format);
	if (vasprintf(&text, format, ap) < 0)
		text = NULL;
	va_end(ap);
	(void)str_set(&sv->status.outcome, outcome);
	free(sv->status.cause);
	sv->status.cause = text;
}

/* The guest's memory is read before a restored VM is up. */
static uint64_t up_usec(const struct sv *sv)
{
	return sv->restore ? VMM_SNAPSHOT_USEC : UP_USEC;
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata)
{
	sv_happen(userdata, SV_DEADLINE, NULL);
	return 0;
}

static void set_deadline(struct sv *sv, uint64_t usec)
{
	if (usec == 0 || usec == UINT64_MAX) {
		sd_event_source_set_enabled(sv->deadline, SD_EVENT_OFF);
		return;
	}
	sd_event_source_set_time_relative(sv->deadline, usec);
	sd_event_source_set_enabled(sv->deadline, SD_EVENT_ONESHOT);
}

static int on_linger(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv *sv = userdata;
	const char *owed = vmm_owes(sv->vmm);
	CLEANUP_FREE char *cause = NULL;

	if (sv->lingering != SV_VMM_FAULT) {
		sv_happen(sv, sv->lingering, "vsockd ended while the VMM lived");
		return 0;
	}
	cause = str_printf("%s%sthe VMM closed a channel of its own and lived on", str_or(owed, ""),
		owed ? ": " : "");
	sv_vmm_fault(sv, cause);
	return 0;
}

void sv_linger(struct sv *sv, enum sv_happening h)
{
	sv->lingering = h;
	sd_event_source_set_time_relative(sv->linger, LINGER_USEC);
	sd_event_source_set_enabled(sv->linger, SD_EVENT_ONESHOT);
}

/*
 * What the end of vsockd is to the table. Status 0 says only that the VMM hung up: whoever hung up has a
 * moment to end (SV_HAPPENINGS: wait for that).
 */
static enum sv_happening vsockd_end(const struct sv *sv)
{
	const siginfo_t *end = &sv->vsockd.child.end;

	if (end->si_code != CLD_EXITED)
		return SV_VSOCKD_GONE;
	switch (end->si_status) {
	case 0: return SV_HAPPENINGS;
	case SV_VSOCKD_EXIT_LOST: return SV_VSOCKD_LOST;
	default: return SV_VSOCKD_GONE;
	}
}

/* Its own words say why. */
static void blame_lost_vsockd(struct sv *sv)
{
	CLEANUP_FREE char *log = NULL;
	char *line;

	sv_child_catch_up(&sv->vsockd.child);
	log = sv_logfile_tail(&sv->vsockd.child.log, 300);
	if (!log || !*log)
		return;
	for (size_t n = strlen(log); n > 0 && log[n - 1] == '\n'; n--)
		log[n - 1] = 0;
	line = strrchr(log, '\n');
	sv_blame(sv, "crashed", "the vsock device died and cannot be replaced; it said: %s",
		line ? line + 1 : log);
}

static void do_replace(struct sv *sv, const char *cause)
{
	if (sv_vsockd_replace(sv, cause) < 0)
		sv_happen(sv, SV_VSOCKD_LOST, NULL);
	sv_status_save(sv);
}

static void do_boot(struct sv *sv)
{
	set_deadline(sv, sv->spec.start_timeout_usec);
}

static void do_ready(struct sv *sv)
{
	set_deadline(sv, 0);
	/* once: a guest may reboot as often as it likes, and the status counts that */
	log_at(sv->status.ready_usec == 0 ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "%s: ready (%s)",
		sv->spec.name, sv->status.ready);
	if (sv->status.ready_usec == 0)
		sv->status.ready_usec = clock_usec(CLOCK_REALTIME);
	sv_link_again(sv);
	sv_share_again(sv);
}

static void do_renew(struct sv *sv)
{
	int r = sv_agent_renew(sv->agent);

	if (sv_snapshot_is_under_way(sv))
		return; /* without a channel it learns all that when it calls again */
	if (r < 0)
		log_warning("%s: its agent was not told what time it is", sv->spec.name);
	sv_control_tell_ready(sv); /* those who wanted the agent */
}

static void do_reboot(struct sv *sv)
{
	if (sv_update_is_due(sv)) {
		sv->update = true;
		sv_blame(sv, "clean", "the guest rebooted, and its image or kernel is a new one");
		sv_happen(sv, SV_FORCE, NULL);
		return;
	}
	sv->status.boots++;
	set_deadline(sv, sv->spec.start_timeout_usec);
	log_debug("%s: the guest rebooted", sv->spec.name); /* the status counts them */
}

/* Again when it has called again (vsockd was replaced, or it has just come up): with the deadline as it is. */
static void do_ask_agent(struct sv *sv, enum sv_state last)
{
	if (last != SV_STOP_AGENT) {
		sd_notify(0, "STOPPING=1");
		sv_vsockd_ping(sv); /* dead or silent, it would freeze the VMM */
		sv_share_wake(sv);
		set_deadline(sv, sv->stop_timeout_usec);
	}
	if (sv_snapshot_is_under_way(sv)) {
		sv_snapshot_cancel(sv); /* then it can be asked */
		return;
	}
	/* less than we wait: a command that obeys no SIGTERM is killed in the guest, and the end is clean */
	if (sv_agent_stop(sv->agent, sv->stop_timeout_usec / 4 * 3) < 0)
		sv_happen(sv, SV_AGENT_REFUSED, NULL);
}

/* Whoever stops a paused guest wakes it first: what is asked of it then waits in its queue. */
static void do_wake(struct sv *sv, enum sv_state last)
{
	if (!sv_snapshot_is_under_way(sv) && sv_change_wake(sv) < 0) {
		sv_happen(sv, SV_AGENT_REFUSED, NULL);
		return;
	}
	do_ask_agent(sv, last);
}

static void do_press_button(struct sv *sv)
{
	set_deadline(sv, sv->stop_timeout_usec < BUTTON_USEC ? sv->stop_timeout_usec : BUTTON_USEC);
	log_warning(
		"%s: the agent did not stop the guest: pressing its power button", sv->spec.name);
	sv_vsockd_ping(sv);
	sv_share_wake(sv);
	if (vmm_power_button(sv->vmm) < 0)
		sv_happen(sv, SV_DEADLINE, NULL);
}

static void do_quit(struct sv *sv)
{
	set_deadline(sv, QUIT_USEC);
	log_warning("%s: the guest did not power off: telling the VMM to quit", sv->spec.name);
	(void)vmm_quit(sv->vmm);
	sv_child_signal(&sv->vmm_child, SIGTERM);
}

static void do_kill(struct sv *sv)
{
	set_deadline(sv, KILL_USEC);
	sv_child_signal(&sv->vmm_child, SIGKILL);
	if (!sv_child_is_running(&sv->vmm_child))
		sv_happen(sv, SV_VMM_GONE, NULL);
}

static void do_note_panic(struct sv *sv)
{
	sv_blame(sv, "panicked", "the guest's kernel panicked");
	do_kill(sv);
}

static void do_fail(struct sv *sv, enum sv_state last)
{
	CLEANUP_FREE char *tail = sv_console_tail(sv->console);
	const char *owed = vmm_owes(sv->vmm);

	if (last == SV_STARTING)
		sv_blame(sv, "failed",
			"%s%sthe VMM did not answer within %llu s; the console's last lines:\n%s",
			str_or(owed, ""), owed ? ": " : "",
			(unsigned long long)up_usec(sv) / 1000000, str_or(tail, "(none)"));
	else
		sv_blame(sv, "failed",
			"the guest was not ready within the start time-out; the console's last "
			"lines:\n%s",
			str_or(tail, "(none)"));
	sv->failure_errno = -ETIMEDOUT;
	(void)str_set(&sv->failure, "the VM did not become ready");
	do_kill(sv);
}

static void do_crash(struct sv *sv, const char *cause)
{
	sv_blame(sv, "crashed", "%s", str_or(cause, "a part of it died"));
	do_kill(sv);
}

/* How it ended, when nothing before said so. */
static void find_outcome(struct sv *sv, enum sv_state last, const char *cause)
{
	const char *owed = vmm_owes(sv->vmm);

	if (sv->guest_shutdown && last <= SV_STOP_AGENT)
		sv_blame(sv, "clean",
			last == SV_STOP_AGENT ? "the agent stopped the guest"
					      : "the guest powered off");
	else if (sv->guest_shutdown && last == SV_STOP_BUTTON)
		sv_blame(sv, "acpi", "the guest obeyed its power button");
	else if (last == SV_STOP_QUIT)
		sv_blame(sv, "forced", "the VMM was told to quit");
	else if (last == SV_STOP_KILL)
		sv_blame(sv, "forced", "the VMM was killed");
	else
		sv_blame(sv, "crashed", "%s%s%s", str_or(cause, "the VMM ended"),
			owed ? " and owed the answer to " : "", str_or(owed, ""));
}

/* An end before the guest was ready, which nobody asked for: the last words say more than we can. */
static void explain_early_end(struct sv *sv, enum sv_state last)
{
	CLEANUP_FREE char *console = NULL, *vmm = NULL, *net = NULL, *cause = NULL;

	if (sv->status.ready_usec != 0 || str_eq(sv->status.outcome, "failed") ||
		str_eq(sv->status.outcome, "forced") || last == SV_STOP_AGENT)
		return;
	sv_child_catch_up(&sv->vmm_child);
	vmm = sv_logfile_tail(&sv->vmm_child.log, 500);
	if (sv->net_child.end.si_code != 0) {
		sv_child_catch_up(&sv->net_child);
		net = sv_logfile_tail(&sv->net_child.log, 500);
	}
	console = sv_console_tail(sv->console);
	cause = str_printf("%s%s%s%s%s%s%s", sv->status.cause, net && *net ? "; passt said:\n" : "",
		str_or(net, ""), vmm && *vmm ? "; the VMM said:\n" : "", str_or(vmm, ""),
		console && *console ? "; the console's last lines:\n" : "", str_or(console, ""));
	if (cause)
		(void)str_set(&sv->status.cause, cause);
}

/* Everything of the incarnation goes; what is to be kept is kept; then the name is free. */
static void clean_up(struct sv *sv)
{
	const char *was = sv->state == SV_ENDED ? NULL : sv_fsm_state_name(sv->state);

	sv_steps_undo(sv);
	sv->state = SV_ENDED;
	sv->status.stopped_usec = clock_usec(CLOCK_REALTIME);
	(void)str_set(&sv->status.state, "stopped");
	if (sv->dir_fd >= 0 && sv->vm_fd >= 0 && sv->spec.keep) {
		int r = runtime_dir_keep(sv->dir_fd, sv->vm_fd, &sv->status);

		if (r < 0)
			log_error("%s: the last state cannot be kept: %s", sv->spec.name,
				strerror(-r));
	}
	if (sv->runtime.fd >= 0) {
		if (!sv->spec.keep)
			(void)vm_lease_drop(&sv->dirs, sv->spec.name);
		runtime_dir_end(&sv->dirs, sv->spec.name, &sv->runtime);
	}
	if (sv->status.started_usec)
		sv_events_state(sv, was, NULL);
	sv->finished = true;
}

static int on_finish(sd_event_source *s, void *userdata)
{
	struct sv *sv = userdata;

	log_info("%s: %s: %s", sv->spec.name, sv->status.outcome, sv->status.cause);
	clean_up(sv);
	sv_control_tell_end(sv);
	return sd_event_exit(sv->event, str_eq(sv->status.outcome, "clean") ? 0 : 1);
}

/* Deferred: the happening may have come from a part that is about to be freed. */
static void do_finish(struct sv *sv, enum sv_state last, const char *cause)
{
	find_outcome(sv, last, cause);
	explain_early_end(sv, last);
	set_deadline(sv, 0);
	(void)sd_event_add_defer(sv->event, &sv->finish, on_finish, sv);
}

static void act(struct sv *sv, enum sv_action action, enum sv_state last, const char *cause)
{
	switch (action) {
	case SV_DO_NOTHING: break;
	case SV_DO_BOOT: do_boot(sv); break;
	case SV_DO_READY: do_ready(sv); break;
	case SV_DO_NETWORK: sv_net_restart(sv, cause); break;
	case SV_DO_RENEW: do_renew(sv); break;
	case SV_DO_WAKE: do_wake(sv, last); break;
	case SV_DO_REBOOT: do_reboot(sv); break;
	case SV_DO_NOTE_SHUTDOWN: sv->guest_shutdown = true; break;
	case SV_DO_NOTE_PANIC: do_note_panic(sv); break;
	case SV_DO_ASK_AGENT: do_ask_agent(sv, last); break;
	case SV_DO_PRESS_BUTTON: do_press_button(sv); break;
	case SV_DO_QUIT: do_quit(sv); break;
	case SV_DO_REPLACE: do_replace(sv, cause); break;
	case SV_DO_KILL: do_kill(sv); break;
	case SV_DO_FAIL: do_fail(sv, last); break;
	case SV_DO_CRASH: do_crash(sv, cause); break;
	case SV_DO_FINISH: do_finish(sv, last, cause); break;
	case SV_ACTIONS: break;
	}
}

static void happen_one(struct sv *sv, enum sv_happening h, const char *cause)
{
	struct sv_transition t = sv_fsm_next(sv->state, h);
	enum sv_state last = sv->state;

	log_debug("%s: %s in %s: %s", sv->spec.name, sv_fsm_happening_name(h),
		sv_fsm_state_name(last), sv_fsm_action_name(t.action));
	sv->state = t.next;
	act(sv, t.action, last, cause);
	if (t.next != last || t.action == SV_DO_READY)
		sv_status_save(sv);
	/* the end is told when everything is gone, with its outcome */
	if (t.next != last && t.next != SV_ENDED)
		sv_events_state(
			sv, sv_fsm_state_name(last), cause ? cause : sv_fsm_happening_name(h));
	if (t.action == SV_DO_READY) {
		/* when whoever is told looks, the status says so */
		sd_notify(0, "READY=1");
		sv_control_tell_ready(sv);
		malloc_trim(0); /* what the start needed; from here on little is */
	}
}

void sv_happen(struct sv *sv, enum sv_happening h, const char *cause)
{
	if (h == SV_VSOCKD_GONE &&
		(sv_handover_took(sv) || sv_dialed_is_over(sv) || sv_snapshot_took(sv)))
		return;
	if (h == SV_VSOCKD_GONE) {
		h = vsockd_end(sv);
		if (h == SV_HAPPENINGS) {
			sv_linger(sv, SV_VSOCKD_LOST);
			return;
		}
		if (h == SV_VSOCKD_LOST && sv->state < SV_STOP_QUIT)
			blame_lost_vsockd(sv);
	}
	if (sv->in_queue) {
		/* from within an action: after it */
		assert(sv->n_queue < SV_QUEUE_MAX);
		sv->queue[sv->n_queue++] = h;
		return;
	}
	sv->in_queue = true;
	happen_one(sv, h, cause);
	for (size_t i = 0; i < sv->n_queue; i++)
		happen_one(sv, sv->queue[i], NULL);
	sv->n_queue = 0;
	sv->in_queue = false;
}

static int start_fail(struct sv *sv, int error, char *message_consume, const char *next)
{
	free(sv->failure);
	sv->failure = message_consume;
	(void)str_set(&sv->failure_next, next);
	sv->failure_errno = error;
	sv_blame(sv, "failed", "%s", str_or(sv->failure, strerror(-error)));
	log_error("%s: %s", str_or(sv->spec.name, "?"), sv->status.cause);
	return error;
}

static int take_name(struct sv *sv)
{
	char holder[16] = "";
	int r;

	(void)runtime_dir_sweep(&sv->dirs, sv->status.name);
	r = runtime_dir_lock(&sv->dirs, sv->status.name, &sv->runtime, holder);
	if (r == -EBUSY)
		return start_fail(sv, r,
			str_printf("VM %s already runs: its supervisor is process %s",
				sv->status.name, *holder ? holder : "(starting)"),
			"uvms status shows it");
	if (r < 0)
		return start_fail(sv, r,
			str_printf("the name cannot be locked in %s: %s", sv->dirs.runtime,
				strerror(-r)),
			"uvms doctor");
	return 0;
}

static int read_spec(struct sv *sv)
{
	char *reason = NULL;
	int r;

	sv->vm_fd = vm_dirs_open_vm(&sv->dirs, sv->status.name, false);
	r = sv->vm_fd < 0 ? sv->vm_fd : vm_spec_read(sv->vm_fd, &sv->spec, &reason);
	if (r < 0)
		return start_fail(sv, r,
			reason ? reason
			       : str_printf("there is no VM %s: %s", sv->status.name, strerror(-r)),
			"uvms ls -a shows what there is");
	sv->stop_timeout_usec = sv->spec.stop_timeout_usec;
	return str_set(&sv->status.image, sv->spec.image);
}

/* From here on stderr is supervisor.log. */
static int make_incarnation(struct sv *sv)
{
	char name[RUNTIME_DIR_INCARNATION_MAX];
	CLEANUP_CLOSE int log = -EBADF;
	int r;

	sv->dir_fd = runtime_dir_begin(&sv->runtime, name);
	if (sv->dir_fd < 0)
		return start_fail(sv, sv->dir_fd,
			str_printf("no directory can be made in %s: %s", sv->dirs.runtime,
				strerror(-sv->dir_fd)),
			"uvms doctor");
	r = str_set(&sv->status.incarnation, name);
	if (r < 0)
		return r;
	sv->trace_fd = openat(sv->dir_fd, "trace", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	log = openat(sv->dir_fd, "supervisor.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
	/* who started us may wait for the end of our stderr: it must not stay his */
	if (log < 0 || (!getenv("JOURNAL_STREAM") && dup2(log, STDERR_FILENO) < 0)) {
		r = -errno;
		return start_fail(sv, r,
			str_printf("supervisor.log cannot be opened: %s", strerror(-r)), NULL);
	}
	sv->status.started_usec = clock_usec(CLOCK_REALTIME);
	sv->status.supervisor_pid = (uint32_t)getpid();
	sv->status.boots = 1;
	sv->status.memory_bytes = sv->spec.memory_bytes;
	sv->status.cpus = sv->spec.cpus;
	sv_status_save(sv);
	sv_events_state(sv, NULL, NULL);
	return 0;
}

static int make_timers(struct sv *sv)
{
	int r;

	r = sd_event_add_time_relative(
		sv->event, &sv->deadline, CLOCK_MONOTONIC, up_usec(sv), 0, on_deadline, sv);
	if (r >= 0)
		r = sd_event_add_time_relative(
			sv->event, &sv->linger, CLOCK_MONOTONIC, LINGER_USEC, 0, on_linger, sv);
	if (r >= 0)
		r = sd_event_source_set_enabled(sv->linger, SD_EVENT_OFF);
	return r < 0 ? r : 0;
}

uint64_t sv_actions_deadline(const struct sv *sv)
{
	uint64_t usec = 0;
	int enabled;

	if (sd_event_source_get_enabled(sv->deadline, &enabled) < 0 || enabled == SD_EVENT_OFF)
		return 0;
	(void)sd_event_source_get_time(sv->deadline, &usec);
	return usec;
}

int sv_actions_resume(struct sv *sv, uint64_t deadline_usec)
{
	int r = make_timers(sv);

	if (r < 0)
		return r;
	if (deadline_usec == 0)
		return sd_event_source_set_enabled(sv->deadline, SD_EVENT_OFF);
	return sd_event_source_set_time(sv->deadline, deadline_usec);
}

static int run_plan(struct sv *sv)
{
	CLEANUP_FREE char *next = NULL;
	char *reason = NULL;
	int r;

	r = sv_plan_build(sv, &reason, &next);
	if (r == 0)
		r = sv_steps_do(sv, &reason);
	if (r < 0)
		return start_fail(sv, r,
			reason ? reason : str_printf("the VM cannot be started: %s", strerror(-r)),
			next);
	return 0;
}

int sv_actions_start(struct sv *sv)
{
	int r;

	r = take_name(sv);
	if (r == 0)
		r = read_spec(sv);
	if (r == 0)
		r = make_incarnation(sv);
	if (r == 0)
		r = make_timers(sv);
	if (r == 0)
		r = run_plan(sv);
	if (r == 0) {
		sv_status_save(sv);
		return 0;
	}
	if (!sv->failure)
		start_fail(sv, r, strdup(strerror(-r)), NULL);
	/* it never lived: the name is free for a better try */
	if (sv->vm_fd >= 0 && faccessat(sv->vm_fd, "last", F_OK, 0) < 0)
		sv->spec.keep = false;
	clean_up(sv);
	sv_control_tell_end(sv);
	return r;
}
