/*
 * A guest that reboots takes its image and kernel anew: when their names mean something else by then, the incarnation
 * ends, and this process executes the supervisor for the next one, which keeps the name, its address and its volumes.
 * Not in an ordinary user's supervisor, which cannot leave its user namespace: there the next start takes them.
 */
#pragma once

#include <stdbool.h>

struct sv;

/* The image or kernel that NAME would be started with now is not what it runs with. */
bool sv_update_is_due(const struct sv *sv);

/* For the program's end. Comes back only when it failed: -errno. */
int sv_update_exec(const char *name);
