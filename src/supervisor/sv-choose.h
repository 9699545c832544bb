/* Which back-end and which accelerator: what was asked for, or the best that works here, and why. */
#pragma once

#include <stdbool.h>

struct sv;

/*
 * Sets sv->backend, sv->vmm_version, sv->accel and the status's words of them. -ENOENT, -EOPNOTSUPP with
 * *RET_REASON and *RET_NEXT (heap).
 */
int sv_choose(struct sv *sv, char **ret_reason, char **ret_next);

/* Whether the vsock device is uvms's own, not the VMM's. */
bool sv_choose_vsockd(const struct sv *sv);

/*
 * Whether the VMM can read a snapshot's memory as the guest needs it, or the reason why not (static). What is not there is
 * known before: a VMM that is refused userfaultfd(2) fails.
 */
bool sv_choose_on_demand(const struct sv *sv, const char **ret_reason);

/* Whether the VMM is to confine itself to its files. */
bool sv_choose_landlock(const struct sv *sv);

/*
 * Where the volumes are that may be attached, the snapshots, and the layers that are lent to it (sv-lend; strv, owned by the caller; they may be missing): a
 * VMM confined by Landlock opens these by path. What is the VM's there is so by its owner.
 */
int sv_choose_landlock_dirs(const struct sv *sv, char ***ret);

/* Makes those that are missing: a rule is for what is there. 0 or -errno. */
int sv_choose_landlock_make(const struct sv *sv);
