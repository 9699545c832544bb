#include "sv-watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "cleanup.h"
#include "log.h"
#include "pidfd.h"
#include "str.h"
#include "sv-children.h"
#include "sv-events.h"
#include "sv.h"

/* As a person knows it. */
static const char *watch_name(const struct sv_child *c)
{
	struct sv *sv = c->sv;

	if (c == &sv->vsockd.child)
		return "uvms-vsockd";
	if (c == &sv->net_child)
		return "passt";
	if (c == &sv->tap.child)
		return "uvms-tapd";
	if (c == &sv->broker.child)
		return "uvms-broker";
	if (c == &sv->namespace_child)
		return "the namespace's init";
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (c == &sv->shares[i].child)
			return "virtiofsd";
	}
	return str_eq(sv->status.backend, "qemu") ? "QEMU" : "the VMM";
}

/* All that are watched; NULL: there is no I-th. */
static struct sv_child *watch_nth(struct sv *sv, size_t i)
{
	struct sv_child *all[] = { &sv->vmm_child, &sv->vsockd.child, &sv->namespace_child,
		&sv->net_child, &sv->tap.child, &sv->broker.child };

	if (i < ARRAY_SIZE(all))
		return all[i];
	i -= ARRAY_SIZE(all);
	return i < ARRAY_SIZE(sv->shares) ? &sv->shares[i].child : NULL;
}

static void watch_note(struct sv *sv)
{
	const char *who = NULL;
	struct sv_child *c;

	for (size_t i = 0; (c = watch_nth(sv, i)); i++) {
		if (c->is_stopped)
			who = c->name;
	}
	(void)str_set(&sv->status.stopped, who);
	sv_status_save(sv);
}

static void watch_give_up(struct sv_child *c, int signo)
{
	struct sv *sv = c->sv;
	char cause[128];

	snprintf(cause, sizeof cause, "%s was stopped (SIG%s) again and again", watch_name(c),
		sigabbrev_np(signo) ? sigabbrev_np(signo) : "?");
	log_warning("%s: %s: it is given up", sv->spec.name, cause);
	if (c != &sv->vmm_child && c != &sv->namespace_child)
		sv_child_signal(c, SIGKILL);
	else
		sv_happen(sv, c == &sv->vmm_child ? SV_VMM_FAULT : SV_NAMESPACE_GONE, cause);
}

/* Whether the ladder deals with it. */
static bool watch_is_leaving(const struct sv_child *c)
{
	return c == &c->sv->vmm_child && c->sv->state >= SV_STOP_AGENT;
}

static int watch_on_grace(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv_child *c = userdata;

	if (!c->is_stopped || watch_is_leaving(c))
		return 0;
	log_info("%s: %s goes on (SIGCONT)", c->sv->spec.name, watch_name(c));
	sv_child_signal(c, SIGCONT);
	return 0;
}

static int watch_set_grace(struct sv_child *c)
{
	int r = 0;

	if (!c->grace)
		r = sd_event_add_time(
			c->sv->event, &c->grace, CLOCK_MONOTONIC, 0, 10000, watch_on_grace, c);
	if (r >= 0)
		r = sd_event_source_set_time_relative(c->grace, SV_WATCH_GRACE_USEC);
	return r < 0 ? r : sd_event_source_set_enabled(c->grace, SD_EVENT_ONESHOT);
}

static void watch_stopped(struct sv_child *c, int signo)
{
	char text[96];
	uint64_t now;
	uint32_t suppressed;

	sd_event_now(c->sv->event, CLOCK_MONOTONIC, &now);
	c->is_stopped = true;
	snprintf(text, sizeof text, "%s was stopped (SIG%s)", watch_name(c),
		str_or(sigabbrev_np(signo), "?"));
	log_warning("%s: %s", c->sv->spec.name, text);
	sv_events_note(c->sv, "process", text);
	watch_note(c->sv);
	if (watch_is_leaving(c))
		return;
	c->stops.interval_usec = SV_WATCH_WINDOW_USEC;
	c->stops.burst = SV_WATCH_STOPS - 1;
	if (!ratelimit_pass(&c->stops, now, &suppressed))
		watch_give_up(c, signo);
	else if (watch_set_grace(c) < 0)
		sv_child_signal(c, SIGCONT);
}

static void watch_look(struct sv_child *c)
{
	siginfo_t si;

	while (c->pidfd >= 0 && pidfd_pause(c->pidfd, &si) > 0) {
		if (si.si_code == CLD_STOPPED) {
			watch_stopped(c, si.si_status);
		} else if (si.si_code == CLD_CONTINUED && c->is_stopped) {
			c->is_stopped = false;
			watch_note(c->sv);
		}
	}
}

static int watch_on_sigchld(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	struct sv_child *c;

	for (size_t i = 0; (c = watch_nth(userdata, i)); i++)
		watch_look(c);
	return 0;
}

int sv_watch_begin(struct sv *sv)
{
	return sd_event_add_signal(sv->event, NULL, SIGCHLD, watch_on_sigchld, sv);
}
