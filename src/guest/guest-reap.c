#include "guest-reap.h"

#include <errno.h>
#include <sys/wait.h>

void guest_reaper_add(struct guest_reaper *r, struct guest_child *c, pid_t pid,
	void (*fn)(struct guest_child *c, const siginfo_t *ending))
{
	c->pid = pid;
	c->fn = fn;
	LIST_INSERT_HEAD(&r->children, c, link);
}

void guest_reaper_forget(struct guest_child *c)
{
	if (c->pid > 0)
		LIST_REMOVE(c, link);
	c->pid = 0;
}

static void guest_reaper_deliver(struct guest_reaper *r, const siginfo_t *ending)
{
	struct guest_child *c;

	LIST_FOREACH(c, &r->children, link)
	{
		if (c->pid != ending->si_pid)
			continue;
		guest_reaper_forget(c);
		c->fn(c, ending);
		return;
	}
}

bool guest_reaper_run(struct guest_reaper *r)
{
	for (;;) {
		siginfo_t si = {};

		if (waitid(P_ALL, 0, &si, WEXITED | WNOHANG) < 0)
			return errno != ECHILD;
		if (si.si_pid == 0)
			return true;
		guest_reaper_deliver(r, &si);
	}
}
