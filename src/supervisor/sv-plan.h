/* From spec and store to the plan that is printed or executed. */
#pragma once

struct sv;

/* Fills sv->plan, ->image, ->kernel, ->accel, ->backend. -errno with *RET_REASON and *RET_NEXT (heap). */
int sv_plan_build(struct sv *sv, char **ret_reason, char **ret_next);

/* In a plan that an earlier program made: what starts uvms-vsockd from now on is as this one has it. 0 or -errno. */
int sv_plan_renew_vsockd(struct sv *sv);
