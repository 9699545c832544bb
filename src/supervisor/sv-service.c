#include "sv-service.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "cleanup.h"
#include "clock.h"
#include "control-error.h"
#include "control-server.h"
#include "log.h"
#include "str.h"
#include "sv-agent.h"
#include "sv.h"
#include "vm-name.h"
#include "vm-service.h"

/* The supervisor of the VM FROM is who asks, not only somebody who could be one. */
static bool is_who_he_says(const struct sv *sv, const struct control_call *call, const char *from)
{
	struct vm_status status = { 0 };
	const char *reason;
	bool is;

	if (vm_name_check(from, &reason) < 0 || !control_call_is_own_user(call) ||
		vm_status_look(&sv->dirs, from, &status) < 0)
		return false;
	is = vm_status_is_alive(&status) && status.supervisor_pid != 0 &&
	     status.supervisor_pid == (uint32_t)control_call_pid(call);
	vm_status_finish(&status);
	return is;
}

static void refuse(struct sv *sv, struct control_call *call, const char *from, uint32_t port)
{
	uint32_t suppressed;

	if (ratelimit_pass(&sv->refused, clock_usec(CLOCK_MONOTONIC), &suppressed))
		log_warning("%s: %s may not call its port %u (%u not told)", sv->spec.name, from,
			port, suppressed);
	control_call_error(call, -EACCES,
		control_error_words("it does not accept that", NULL,
			"uvms run --accept of the VM that is called"));
}

void sv_service_dial(struct sv *sv, struct control_call *call, const char *from, uint32_t port)
{
	if (!is_who_he_says(sv, call, from))
		control_call_error(call, -EPERM,
			control_error_words(
				"only the supervisor of that VM may ask for it", NULL, NULL));
	else if (!vm_accept_allows(sv->spec.accepts, from, port))
		refuse(sv, call, from, port);
	else if (sv->state != SV_RUNNING && sv->state != SV_BOOTING)
		control_call_error(
			call, -ENOTCONN, control_error_words("its guest does not run", NULL, NULL));
	else
		sv_agent_open(sv->agent, call, port);
}
