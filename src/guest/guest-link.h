/* A network interface that comes while the guest runs: it is waited for, and set up as the host says. */
#pragma once

#include "boot-desc.h"
#include "guest-loop.h"

struct guest_link {
	struct guest_loop *loop; /* borrowed */
	/* ERROR 0: it is set up; ETIMEDOUT: it did not come; else a positive errno */
	void (*done)(void *user, int error);
	void *user; /* borrowed */

	struct boot_desc_network network;
	struct guest_source events;
	struct guest_timer timer;
	int fd; /* owned; -EBADF: none is waited for */
};

/* The fields above the gap are the caller's. One at a time: the one before it is not waited for any more (ECANCELED). */
void guest_link_set_up(struct guest_link *l, const struct boot_desc_network *network);
void guest_link_finish(struct guest_link *l);
