/* Children by pid, reaped on SIGCHLD; as PID 1 also everybody else's orphans. */
#pragma once

#include "guest-loop.h"

#include <signal.h>

struct guest_child {
	pid_t pid;                                                  /* 0: not running */
	void (*fn)(struct guest_child *c, const siginfo_t *ending); /* called once, pid is 0 then */
	LIST_ENTRY(guest_child) link;                               /* in guest_reaper.children */
};

struct guest_reaper {
	LIST_HEAD(, guest_child) children;
};

void guest_reaper_add(struct guest_reaper *r, struct guest_child *c, pid_t pid,
	void (*fn)(struct guest_child *c, const siginfo_t *ending));
void guest_reaper_forget(struct guest_child *c); /* it is reaped later, silently */

/* Reaps all that have ended. False when this process has no child left at all. */
bool guest_reaper_run(struct guest_reaper *r);
