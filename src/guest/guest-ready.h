/* When a systemd guest is up: asks systemctl, which waits for the end of the start-up. */
#pragma once

#include "guest-proc.h"

#define GUEST_READY_TEXT_MAX 4096

struct guest_ready {
	struct guest_loop *loop;     /* borrowed */
	struct guest_reaper *reaper; /* borrowed */
	void (*done)(void *user, bool degraded, const char *failed_units);
	void *user; /* borrowed */

	struct guest_proc proc;
	struct guest_source output;
	struct guest_timer timer;
	int fd; /* owned */
	bool listing;
	size_t len;
	char text[GUEST_READY_TEXT_MAX + 1];
};

/* The fields above the gap are the caller's. Calls DONE once. */
void guest_ready_start(struct guest_ready *r);
void guest_ready_finish(struct guest_ready *r);
