#include "sv-events.h"

#include <string.h>

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

	events_append(sv, &e);
}

void sv_events_note(struct sv *sv, const char *what, const char *cause)
{
	struct vm_event e = { .vm = sv->status.name,
		.event = what,
		.state = sv_fsm_state_name(sv->state),
		.cause = cause,
		.incarnation = sv->status.incarnation };

	events_append(sv, &e);
}
