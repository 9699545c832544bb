/*
 * Connections into the guest for `uvms forward`, several on their way at once.
 *
 * Theory of operation. A control connection carries one call at a time, so there are FORWARD_DIALS of
 * them, made when they are needed. Each takes a client through: OpenAgent, FORWARD and its answer; or
 * OpenPort, for a vsock port of the guest, which needs no agent. The first is there from the start:
 * its end is that of the VM. Nothing here waits.
 */
#pragma once

#include <stddef.h>

#include "agent-wire.h"
#include "loop.h"

#define FORWARD_DIALS 16
#define FORWARD_USEC  (UINT64_C(15) * 1000000) /* for the agent's answer */

struct forward_dialer;

struct forward_dial {
	struct forward_dialer *dialer; /* borrowed: the one it is in */
	struct loop_source control_source, guest_source;
	struct loop_timer timer;
	int control, client, guest; /* owned; client -EBADF: idle */
	size_t len;
	uint8_t buf[AGENT_WIRE_HEADER + AGENT_WIRE_TEXT_MAX + 64];
};

struct forward_dialer {
	struct loop *loop; /* borrowed, as all of these */
	const char *vm_name;
	const struct agent_wire_msg *target; /* a FORWARD */
	/* Both descriptors are the callee's. */
	void (*opened)(int client, int guest, void *user);
	void (*failed)(const char *text, void *user); /* the client has been closed */
	void (*ended)(void *user);                    /* the VM */
	void *user;
	struct forward_dial dials[FORWARD_DIALS];
};

/* The fields above dials are set. Connects the first; 0 or -errno of cli_connect(). */
int forward_dial_init(struct forward_dialer *d);
void forward_dial_finish(struct forward_dialer *d);

/* How many clients are on their way; at most FORWARD_DIALS. */
size_t forward_dial_busy(const struct forward_dialer *d);

/* Takes CLIENT over; one of the three hooks follows. Only when one of the dials is free. */
void forward_dial_start_consume(struct forward_dialer *d, int client);
