/*
 * A live uvms-vsockd is replaced by the one that is installed now, and its connections go on.
 *
 * Theory of operation. The next one is started beside, and when it is confined and says WAITS, the one in service is
 * told HANDOVER with a channel to it (keeper-wire.h; vsock-handover.h has their side). It gives all it has to the
 * other and ends; that end is the moment in which the next one becomes ours, gets the slots and GO, and goes
 * on with the session. Nothing goes through here.
 *
 * What may fail: the next one does not come up, or the other says STAYS: the old one goes on, and nothing was lost. Nothing comes of it
 * within SV_HANDOVER_USEC: the next one is killed, and when the old one does not say STAYS then (it hangs, or is of a version that
 * knows nothing of this), it is too, and its successor resets what was connected, as after any death. The next one dies with all in its hands: the same, by its successor.
 */
#pragma once

#include <stdint.h>

#include "sv.h"

#define SV_HANDOVER_START_USEC (UINT64_C(3) * 1000000)
#define SV_HANDOVER_USEC       (UINT64_C(1) * 1000000)

typedef void (*sv_handover_done)(struct sv *sv, enum sv_handover_result result);

/* Idle values. */
void sv_handover_init(struct sv *sv);

/* DONE is called once, perhaps at once; not any more after sv_handover_finish(). */
void sv_handover_begin(struct sv *sv, sv_handover_done done);
