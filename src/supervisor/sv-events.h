/*
 * What the supervisor tells whoever follows `uvms events`: vm-event.h. Losing one harms nothing.
 *
 * All VMs of a realm share one bounded file, and a guest that reboots again and again must not push what happened to
 * the others out of it. So an incarnation tells at most SV_EVENTS_MAX in each SV_EVENTS_WINDOW_USEC; "omitted" says
 * that more are left out, and later how many were. Its stop and its end, which come once, are always told. A
 * refresh, which is up to the owner, begins anew.
 */
#pragma once

#include <stdint.h>

#define SV_EVENTS_MAX         128
#define SV_EVENTS_WINDOW_USEC (UINT64_C(24) * 3600 * 1000000)

struct sv;

/* The VM is in another state than WAS (NULL: it begins). Its end carries outcome and cause of the status. */
void sv_events_state(struct sv *sv, const char *was, const char *cause);

/* WHAT ("vsockd", "network", "share", "process", "refresh") went on without a change of state. */
void sv_events_note(struct sv *sv, const char *what, const char *cause);
