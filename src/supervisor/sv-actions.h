/* What the table's actions do, and the way from start to end around them. */
#pragma once

struct sv;

/* Name, directories, plan, steps. -errno when it failed: then sv_actions_abort() was done. */
int sv_actions_start(struct sv *sv);
