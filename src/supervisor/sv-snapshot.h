/*
 * A snapshot, as the supervisor has to do with it: STATE/snapshots/NAME, which the client makes and completes with
 * its manifest, holds the directory "vmm", which the VMM fills as the VM, and "secret", by which the agent in the
 * guest's memory will know us again.
 */
#pragma once

#include <stdbool.h>

struct control_call;
struct sv;

/* Answers CALL, now or later. NAME is borrowed. LOOK: says whether it can be done, and touches nothing. */
void sv_snapshot_ask(struct sv *sv, struct control_call *call, const char *name, bool look);

/* Takes over what a start from sv->restore needs: sv->secret, sv->restore_path. -errno with *RET_REASON (heap). */
int sv_snapshot_load(struct sv *sv, char **ret_reason);
