/*
 * Where the host is: AF_VSOCK; or, to test the agent without a VM, UNIX sockets. Descriptors are
 * non-blocking and CLOEXEC.
 */
#pragma once

struct guest_transport {
	const char *listen_path; /* borrowed; NULL: vsock */
	const char *home_path;   /* borrowed; used with listen_path; NULL: nobody to dial */
};

/* The agent's port. Returns the descriptor or -errno. */
int guest_transport_listen(const struct guest_transport *t);

/*
 * Begins to dial the host's AGENT_PORT. The descriptor becomes writable when that has ended;
 * SO_ERROR tells how. -ENODEV: the vsock device is not there (yet).
 */
int guest_transport_dial(const struct guest_transport *t);

/* Waits until the host can be dialled: the device may still be on its way. 0 or -ETIMEDOUT. */
int guest_transport_wait(const struct guest_transport *t, int timeout_ms);

int guest_transport_dial_local_vsock(unsigned port);
