#include "sv-refresh.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <systemd/sd-daemon.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "log.h"
#include "path.h"
#include "pidfd.h"
#include "sandbox.h"
#include "spawn.h"
#include "str.h"
#include "sv-actions.h"
#include "sv-children.h"
#include "sv-control.h"
#include "sv-events.h"
#include "sv-handover.h"
#include "sv-saved.h"
#include "sv-state.h"
#include "sv.h"

#define REFRESH_AGAIN_USEC (UINT64_C(5) * 1000)

/* It was not to be: all goes on as before. */
static void refresh_fail(struct sv *sv, int error, const char *cause, const char *next)
{
	struct control_call *call = TAKE_PTR(sv->refresh.call);

	sv->refresh.timer = sd_event_source_disable_unref(sv->refresh.timer);
	log_warning("%s: not refreshed: %s", sv->spec.name, cause);
	control_call_error(
		call, error, control_error_words("its supervisor goes on as it was", cause, next));
	if (sv_fsm_is_up(sv->state))
		sv_control_tell_ready(sv); /* sessions have waited */
}

static bool refresh_is_armed(sd_event_source *s)
{
	int enabled;

	return s && sd_event_source_get_enabled(s, &enabled) >= 0 && enabled != SD_EVENT_OFF;
}

/* What hinders it in this moment, or NULL. */
static const char *refresh_hindrance(const struct sv *sv)
{
	const struct sv_child *all[] = { &sv->vmm_child, &sv->vsockd.child, &sv->namespace_child };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		if (all[i]->is_stopped)
			return "one of its processes is stopped (SIGSTOP)";
		if (sv_child_has_ended(all[i]))
			return "one of its processes has just ended";
	}
	if (sv->net_child.is_stopped)
		return "its passt is stopped (SIGSTOP)";
	if (sv->tap.child.is_stopped)
		return "its uvms-tapd is stopped (SIGSTOP)";
	if (sv->broker.child.is_stopped)
		return "its uvms-broker is stopped (SIGSTOP)";
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (sv->shares[i].child.is_stopped)
			return "its virtiofsd is stopped (SIGSTOP)";
	}
	if (sv->vsockd.pinging)
		return "uvms-vsockd does not answer";
	if (sv->change.busy || sv->link.call || sv->sharing.share || sv_snapshot_is_under_way(sv))
		return "it is being changed";
	if (sv_handover_is_under_way(sv))
		return "uvms-vsockd is being replaced";
	if (sv->guest_shutdown || sv->in_queue || sv->finish || refresh_is_armed(sv->linger))
		return "the VM is ending";
	return NULL;
}

/* The new program's own word: 0 when it would go on from what is in MEMFD. */
static int refresh_check(struct sv *sv, const char *program, int memfd)
{
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program,
		.argv = (const char *[]){ "uvms-supervisor", "--check-resume-fd", "3",
			sv->spec.name, NULL },
		.fds = &memfd, .n_fds = 1, .stderr_fd = STDERR_FILENO };
	CLEANUP_CLOSE int pidfd = -EBADF;
	struct pollfd p = { .events = POLLIN };
	int r;

	sv_child_confine(&sv->vsockd.child, &spawn);
	r = spawn_process(&spawn, NULL, &pidfd);
	if (r < 0)
		return r;
	p.fd = pidfd;
	if (poll(&p, 1, SV_REFRESH_CHECK_USEC / 1000) <= 0)
		(void)pidfd_signal(pidfd, SIGKILL);
	return spawn_wait(pidfd) == 0 ? 0 : -ENOEXEC;
}

/* Comes back only when it failed. */
static int refresh_exec(struct sv *sv, const struct sv_saved *s, const char *program, int memfd)
{
	char number[16];
	const char *argv[] = { "uvms-supervisor", "--resume-fd", number, sv->spec.name, NULL };
	int r;

	snprintf(number, sizeof number, "%d", memfd);
	r = fd_set_cloexec(memfd, false);
	if (r >= 0)
		r = sv_saved_set_cloexec(s, false);
	if (r >= 0 && geteuid() != 0)
		r = sandbox_keep_capabilities();
	if (r >= 0) {
		if (sv->status.ready_usec)
			sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu",
				(unsigned long long)clock_usec(CLOCK_MONOTONIC));
		execv(program, (char *const *)argv);
		r = -errno;
		if (sv->status.ready_usec)
			sd_notify(0, "READY=1");
	}
	if (geteuid() != 0)
		(void)sandbox_keep_no_capabilities();
	(void)sv_saved_set_cloexec(s, true);
	return r;
}

static void refresh_go(struct sv *sv, const struct sv_saved *s)
{
	CLEANUP_FREE char *program = NULL, *cause = NULL;
	CLEANUP_CLOSE int memfd = sv_saved_write(s);
	int r = memfd;

	if (r >= 0)
		r = sv->refresh.program ? str_set(&program, sv->refresh.program)
					: path_find_helper("uvms-supervisor", &program);

	if (r == 0)
		r = refresh_check(sv, program, memfd);
	if (r == -ENOEXEC) {
		cause = str_printf("%s is broken, or older than this one and does not understand "
				   "its state",
			program);
		refresh_fail(sv, -EOPNOTSUPP, str_or(cause, "out of memory"),
			"uvms logs --source=supervisor shows what it said");
		return;
	}
	if (r == 0)
		r = refresh_exec(sv, s, program, memfd);
	cause = str_printf("uvms-supervisor cannot be executed again: %s", strerror(-r));
	refresh_fail(sv, r == -ENOENT ? -EOPNOTSUPP : -EIO, str_or(cause, "out of memory"),
		"install uvms whole");
}

static int refresh_again(struct sv *sv)
{
	sd_event_source_set_time_relative(sv->refresh.timer, REFRESH_AGAIN_USEC);
	return sd_event_source_set_enabled(sv->refresh.timer, SD_EVENT_ONESHOT);
}

static int refresh_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	struct sv *sv = userdata;
	struct sv_saved *s = NULL;
	const char *why;
	int r = 0;

	if (sv->state != SV_BOOTING && !sv_fsm_is_up(sv->state)) {
		refresh_fail(sv, -EBUSY, "the VM is ending", NULL);
		return 0;
	}
	why = refresh_hindrance(sv);
	if (!why)
		r = sv_state_save(sv, sv->refresh.call, &s, &why);
	if (s)
		refresh_go(sv, s);
	else if (r < 0 && r != -EBUSY)
		refresh_fail(sv, -EIO, strerror(-r), NULL);
	else if (clock_usec(CLOCK_MONOTONIC) >= sv->refresh.until_usec || refresh_again(sv) < 0)
		refresh_fail(sv, -EBUSY, why, "try again");
	sv_state_free(s);
	return 0;
}

void sv_refresh_ask(struct sv *sv, struct control_call *call, const char *program)
{
	const char *why = NULL;

	if (sv->refresh.call || sv->refresh.done)
		why = "it is being refreshed already";
	else if (sv->state < SV_BOOTING)
		why = "the VM is starting";
	else if (sv->state != SV_BOOTING && !sv_fsm_is_up(sv->state))
		why = "the VM is ending";
	else if (str_set(&sv->refresh.program, program) < 0 ||
		 sd_event_add_time_relative(sv->event, &sv->refresh.timer, CLOCK_MONOTONIC, 0, 1,
			 refresh_on_timer, sv) < 0)
		why = "out of memory";
	if (why) {
		control_call_error(call, -EBUSY,
			control_error_words(
				"its supervisor cannot be replaced now", why, "try again"));
		return;
	}
	sv->refresh.call = call;
	sv->refresh.until_usec = clock_usec(CLOCK_MONOTONIC) + SV_REFRESH_QUIET_USEC;
}

void sv_refresh_forget(struct sv *sv, struct control_call *call)
{
	if (sv->refresh.done == call)
		sv->refresh.done = NULL;
	if (sv->refresh.call != call)
		return;
	sv->refresh.call = NULL;
	sv->refresh.timer = sd_event_source_disable_unref(sv->refresh.timer);
	if (sv_fsm_is_up(sv->state))
		sv_control_tell_ready(sv);
}

void sv_refresh_arrive(void)
{
	/* by execve() the process has become dumpable again, and heir of what it had (sandbox.h) */
	prctl(PR_SET_DUMPABLE, 0);
	if (geteuid() != 0)
		(void)sandbox_keep_no_capabilities();
}

/* Those who waited meanwhile are served, and the call is answered: all is new, as far as it could be. */
static void refresh_answer(struct sv *sv, enum sv_handover_result result)
{
	static const char *const words[] = {
		[SV_HANDOVER_DONE] = "replaced",
		[SV_HANDOVER_RESET] = "reset",
		[SV_HANDOVER_STAYS] = "kept",
		[SV_HANDOVER_NONE] = "none",
	};
	struct control_call *call = TAKE_PTR(sv->refresh.done);
	struct json_object *reply = call ? json_object_new_object() : NULL;

	log_info("%s: refreshed (%s -> %s), vsock device: %s", sv->spec.name, sv->refresh.from,
		sv_version(), words[result]);
	sv_events_note(sv, "refresh", words[result]);
	if (reply) {
		json_object_object_add(reply, "from", json_object_new_string(sv->refresh.from));
		json_object_object_add(reply, "to", json_object_new_string(sv_version()));
		json_object_object_add(reply, "vsock", json_object_new_string(words[result]));
	}
	if (call)
		control_call_reply(call, reply, -EBADF);
	if (sv_fsm_is_up(sv->state))
		sv_control_tell_ready(sv);
}

int sv_refresh_resume(struct sv *sv, struct sv_saved *s)
{
	int r = sv_state_load(sv, s, &sv->refresh.done);

	if (r < 0)
		return r;
	if (sv->status.ready_usec)
		sd_notify(0, "READY=1");
	sv_status_save(sv);
	snprintf(sv->refresh.from, sizeof sv->refresh.from, "%s", s->self.uvms);
	sv_handover_begin(sv, refresh_answer);
	return 0;
}

void sv_refresh_finish(struct sv *sv)
{
	if (sv->refresh.call)
		refresh_fail(sv, -ESHUTDOWN, "the VM has ended", NULL);
	if (sv->refresh.done)
		refresh_answer(sv, SV_HANDOVER_STAYS);
	free(sv->refresh.program);
	sv->refresh.program = NULL;
}
