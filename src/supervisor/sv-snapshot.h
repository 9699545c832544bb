/*
 * A snapshot, as the supervisor has to do with it: STATE/snapshots/NAME, which the client makes and completes with
 * its manifest, holds the directory "vmm", which the VMM fills as the VM, and "secret", by which the agent in the
 * guest's memory will know us again.
 *
 * Theory of operation. One way there and one back, whatever fails on it:
 *
 *	freeze    the agent lets no other program of the guest run
 *	vsock out where the VMM cannot save its vsock device: the guest gives it up, and uvms-vsockd ends
 *	pause, save
 *	vsock in  with a new uvms-vsockd; the agent calls again
 *	resume    the guest is told the time and gets entropy
 *	thaw
 *
 * What is saved is a frozen guest. Whoever goes on with it (sv->restore) is called by its agent, says WELCOME and then
 * THAW, so each program's first step is one with the right time and with entropy of its own. A failure on the way
 * there is the answer, once the guest is back; one on the way back ends the VM, as there would be no guest to speak of.
 * A stop turns it round; where the VMM cannot be told to give up, it waits for the save (VMM_SNAPSHOT_USEC at most, and
 * the ladder's deadline before that). The client may go at any time.
 */
#pragma once

#include <stdbool.h>

struct sv;

/* Takes over what a start from sv->restore needs: sv->secret, sv->restore_path. -errno with *RET_REASON (heap). */
int sv_snapshot_load(struct sv *sv, char **ret_reason);

/*
 * Root's: what of sv->restore the VMM opens by its path is the VM's to read, and no more its own than that, while it
 * starts; then it is root's again. 0 or -errno.
 */
int sv_snapshot_lend(const struct sv *sv, bool lend);
