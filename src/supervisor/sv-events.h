/* What the supervisor tells whoever follows `uvms events`: vm-event.h. Losing one harms nothing. */
#pragma once

struct sv;

/* The VM is in another state than WAS (NULL: it begins). Its end carries outcome and cause of the status. */
void sv_events_state(struct sv *sv, const char *was, const char *cause);

/* WHAT ("vsockd", "network", "process", "refresh") went on without a change of state. */
void sv_events_note(struct sv *sv, const char *what, const char *cause);
