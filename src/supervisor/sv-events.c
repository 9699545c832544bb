#include "sv-events.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "log.h"
#include "sv-fsm.h"
#include "sv.h"
#include "vm-event.h"

static void events_append(struct sv *sv, const struct vm_event *e)
{
	int r = vm_event_append(&sv->dirs, e);

	if (r < 0)
		log_debug("%s: the event \"%s\" is lost: %s", e->vm, e->event, strerror(-r));
}

static void events_tell(struct sv *sv, const char *what, const char *cause)
{
	events_append(sv, &(struct vm_event){ .vm = sv->status.name,
				  .event = what,
				  .state = sv_fsm_state_name(sv->state),
				  .cause = cause,
				  .incarnation = sv->status.incarnation });
}

/* Whether one more may be told. */
static bool events_pass(struct sv *sv)
{
	bool first = sv->events.suppressed == 0;
	uint32_t omitted = 0;
	char cause[96];

	if (ratelimit_pass(&sv->events, clock_usec(CLOCK_MONOTONIC), &omitted)) {
		snprintf(cause, sizeof cause, "%u events were left out", omitted);
		if (omitted > 0)
			events_tell(sv, "omitted", cause);
		return true;
	}
	snprintf(cause, sizeof cause, "more than %d events in 24 hours: others are left out",
		SV_EVENTS_MAX);
	if (first)
		events_tell(sv, "omitted", cause);
	return false;
}

void sv_events_state(struct sv *sv, const char *was, const char *cause)
{
	bool ended = sv->state == SV_ENDED;
	struct vm_event e = { .vm = sv->status.name,
		.event = "state",
		.state = sv_fsm_state_name(sv->state),
		.was = was,
		.outcome = ended ? sv->status.outcome : NULL,
		.cause = ended ? sv->status.cause : cause,
		.incarnation = sv->status.incarnation };

	if (sv->state >= SV_STOP_AGENT || events_pass(sv))
		events_append(sv, &e);
}

void sv_events_note(struct sv *sv, const char *what, const char *cause)
{
	if (events_pass(sv))
		events_tell(sv, what, cause);
}
