/* What the table's actions do, and the way from start to end around them. */
#pragma once

#include <stdint.h>

struct sv;

/* Name, directories, plan, steps. -errno when it failed: then sv_actions_abort() was done. */
int sv_actions_start(struct sv *sv);

/* The deadline of the present state (CLOCK_MONOTONIC), 0: none; and the timers of a VM that goes on here. */
uint64_t sv_actions_deadline(const struct sv *sv);
int sv_actions_resume(struct sv *sv, uint64_t deadline_usec);
