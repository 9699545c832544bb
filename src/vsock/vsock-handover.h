/*
 * Live connections go from one uvms-vsockd to the next, without a byte lost on the way.
 *
 * Theory of operation. The new process is started first and confines itself; then the old one is told (keeper-wire.h)
 * and stops where it stands: between two turns of its loop nothing is in flight (vsock-dev.h), so what it knows of
 * a connection is a few numbers, the bytes of its ring and a descriptor. It sends them all, then END, and waits
 * for TAKEN. The new one holds them until the session is its own, and then goes on.
 *
 * Who serves. Until END the old one: when the other is gone or does not read, it goes on as if nothing
 * had been, for it has changed nothing. After END only the new one, unless that is gone (end of file). A new one
 * that has no END knows nothing, and resets what the kept table names.
 *
 * Trust: see vsock-handover-wire.h. A descriptor has to be a socket, and becomes non-blocking; what else is wrong
 * with it, its sender could have done with it.
 */
#pragma once

#include "vsock-handover-wire.h"
#include "vsock-host.h"
#include "vsock-mux.h"

struct vsock_handover {
	uint8_t bytes[VSOCK_HANDOVER_MAX]; /* the message being made or read */
	uint32_t count;
};

/*
 * All of M and H to SOCK (blocking, with time-outs of its own). 0: the other has them now; -errno: it is gone, and
 * nothing was changed here.
 */
int vsock_handover_send(
	struct vsock_handover *v, const struct vsock_mux *m, const struct vsock_host *h, int sock);

/* From SOCK into M and H, which have none. 0, or -errno: what came is in them, and is to be dropped. */
int vsock_handover_receive(
	struct vsock_handover *v, struct vsock_mux *m, struct vsock_host *h, int sock);
