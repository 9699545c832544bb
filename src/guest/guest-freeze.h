/*
 * No program of the guest but this one runs: for the time in which the guest is saved, and until who goes on with it
 * has the right time and entropy of its own.
 *
 * Theory of operation. The kernel's freezer of cgroup2, in a mount of the hierarchy that nobody else sees: we go to its
 * root, every cgroup below that is frozen, and who is in the root itself goes to a cgroup of ours that is. A new one
 * cannot appear once all are still, so passes are made until one finds nothing. A frozen process is stopped at its
 * return from the kernel, sees no signal of it, and its parent neither; it can still be killed.
 *
 * Limits. The kernel's own threads run, and what they do for others (a disk's I/O, io_uring). One who is deep in the
 * kernel and does not come out (a dead file system) cannot be frozen: FREEZE_MS, and then all run again. What a program
 * has drawn from the kernel's generator before it was frozen it has drawn; a generator of its own does not know of
 * any of this. A kernel without cgroup2 cannot do it at all.
 */
#pragma once

#include <stddef.h>

#include "guest-loop.h"

#define GUEST_FREEZE_CGROUPS 256

struct guest_freeze_cgroup {
	struct guest_source source;  /* its cgroup.events */
	int fd, events_fd;           /* owned */
	struct guest_freeze *freeze; /* borrowed */
};

struct guest_freeze {
	struct guest_loop *loop; /* borrowed */
	/* 0: nobody else runs; -errno: everybody does. WHO is the cgroup in question; may be "". */
	void (*done)(void *user, int error, const char *who);
	void *user;
	int root_fd, proc_fd; /* owned: the mounts; -EBADF: everybody runs */
	char home[4096];      /* our cgroup's path, relative to the root; "": the root */
	struct guest_freeze_cgroup *cgroups; /* owned: what was frozen by us */
	size_t n_cgroups;
	struct guest_timer timer;
	bool is_waiting; /* DONE is due */
};

void guest_freeze_init(struct guest_freeze *f);

/* DONE comes later, once. 0, or -errno and everybody runs; -EALREADY: it comes, or nobody runs. */
int guest_freeze_start(struct guest_freeze *f);

/* 0, also when everybody runs; -errno: somebody does not. */
int guest_freeze_thaw(struct guest_freeze *f);
