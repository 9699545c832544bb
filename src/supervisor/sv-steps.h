/* The steps of a plan: what each does and how it is undone. */
#pragma once

struct sv;
struct vmm_saved;

/*
 * Executes sv->plan in order, writing each step to the trace. -errno with *RET_REASON (heap) at the
 * first that fails; sv->steps_done says how far it came.
 */
int sv_steps_do(struct sv *sv, char **ret_reason);

/* Goes on with the VMM that an earlier image of this process started. The descriptor is taken over. */
int sv_steps_resume_vmm(struct sv *sv, const struct vmm_saved *saved);

/* Undoes what was done, in reverse. Never fails. */
void sv_steps_undo(struct sv *sv);
