/* The steps of a plan: what each does and how it is undone. */
#pragma once

struct sv;

/*
 * Executes sv->plan in order, writing each step to the trace. -errno with *RET_REASON (heap) at the
 * first that fails; sv->steps_done says how far it came.
 */
int sv_steps_do(struct sv *sv, char **ret_reason);

/* Undoes what was done, in reverse. Never fails. */
void sv_steps_undo(struct sv *sv);
