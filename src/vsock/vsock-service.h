/* uvms-vsockd put together: loop, engine, device and hybrid socket of one machine. */
#pragma once

#include "ratelimit.h"
#include "vsock-dev.h"
#include "vsock-handover.h"
#include "vsock-host.h"
#include "vsockd-args.h"

/* What sandbox_want_fds() should be asked for. */
#define VSOCK_SERVICE_FDS                                                                          \
	(VSOCK_CONNS_MAX + VSOCK_PENDING_MAX + 3 * VU_QUEUES_MAX + VU_WIRE_FDS_MAX +               \
		KEEPER_SLOTS + 16)

/* Exit status: the session that a former process left cannot be taken over. */
#define VSOCK_SERVICE_LOST 3

/* Exit status: another process has all connections now. */
#define VSOCK_SERVICE_HANDED_OVER 4

struct vsock_service {
	struct loop loop;
	struct vsock_mux mux;
	struct vsock_dev dev;
	struct vsock_host host;
	struct vu_keep keep;
	bool is_kept; /* there is a keeper */
	bool is_over; /* handed over: nothing is left here */
	int table_fd; /* owned until it is mapped */
	int from_fd;  /* owned: the process in service */
	struct ratelimit refusals;
	struct vsock_handover handover;
};

/* Takes over the descriptors of A. 0 or -errno; then exit, there is nothing to finish. */
int vsock_service_start(struct vsock_service *s, const struct vsockd_args *a, uint64_t seed);

/*
 * Reads what a former process left, and goes on with it; the connections it had are reset, unless it lives and
 * hands them over. To be called
 * confined: that process may have fallen to its guest. 0, VSOCK_SERVICE_LOST, or -errno.
 */
int vsock_service_take_over(struct vsock_service *s);

/* Runs until the VMM is gone. Returns the exit code, or -errno. */
int vsock_service_run(struct vsock_service *s);
void vsock_service_finish(struct vsock_service *s);
