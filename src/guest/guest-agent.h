/*
 * The agent: one event loop with the port, the control channel and, in COMMAND mode, the duties of
 * PID 1 and the boot description's own command.
 */
#pragma once

#include "guest-proc.h"
#include "guest-transport.h"

enum guest_agent_mode {
	GUEST_AGENT_COMMAND, /* this is PID 1 */
	GUEST_AGENT_SYSTEM,  /* the image's init is PID 1 */
	GUEST_AGENT_TEST,    /* as COMMAND, on a host: nothing but its own children is touched */
};

struct guest_agent_config {
	enum guest_agent_mode mode;
	struct guest_transport transport;
	const uint8_t *secret;                 /* borrowed; AGENT_WIRE_SECRET bytes */
	const struct guest_proc_spec *command; /* borrowed; NULL: none */
	bool ready_probe;                      /* SYSTEM: READY waits for systemd */
	void (*while_calling)(
		const void *);          /* done while the call home is on its way; may be NULL */
	const void *while_calling_data; /* borrowed */
};

/*
 * Runs until the guest is to end; returns how (enum agent_wire_stop), 0 for an ordinary end of the agent,
 * or -errno.
 */
int guest_agent_run(const struct guest_agent_config *config);
