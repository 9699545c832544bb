/*
 * Virtual CPUs that are added while the guest runs: the kernel announces them and leaves them offline, so the
 * agent puts them to work. (Added memory goes online by itself: memhp_default_state=online.)
 */
#pragma once

#include "guest-loop.h"

struct guest_cpus {
	struct guest_source source;
	int fd; /* owned */
};

/* 0, or -errno: CPUs stay as they are then. */
int guest_cpus_init(struct guest_cpus *c, struct guest_loop *l);
void guest_cpus_finish(struct guest_cpus *c);

/* The number in the path of an "add" event of a CPU of LEN bytes, or -1. For tests. */
int guest_cpus_added(const char *event, size_t len);
