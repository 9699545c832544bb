/*
 * What one uvms-vsockd tells the next while it lives: a message for each connection. Pure.
 *
 * One SOCK_SEQPACKET message is VSOCK_HANDOVER_BYTES, host order (it never leaves the machine), and for a
 * connection the bytes of its ring behind; its descriptor is beside it. The magic changes with the
 * layout or the meaning. Whatever is not to be understood ends the handover, and then connections are reset.
 *
 *	old → new	CONN … PENDING … RESET … END{count of those before}
 *	new → old	TAKEN
 *
 * The receiver takes the sender for hostile: it may have fallen to its guest. A connection has to be one that the
 * engine could have (vsock-conn.h): what is owed and shut fits its state, the ring holds what was not forwarded.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vsock-conn.h"

#define VSOCK_HANDOVER_MAGIC 0x31484356u /* "VCH1" */
#define VSOCK_HANDOVER_BYTES 72
#define VSOCK_HANDOVER_MAX   (VSOCK_HANDOVER_BYTES + VSOCK_BUF_BYTES)
#define VSOCK_HANDOVER_NEVER UINT64_MAX

enum vsock_handover_kind {
	VSOCK_HANDOVER_CONN = 1,
	VSOCK_HANDOVER_PENDING = 2, /* a caller who has not sent his line */
	VSOCK_HANDOVER_RESET = 3,   /* owed to a packet of nobody's */
	VSOCK_HANDOVER_END = 4,
	VSOCK_HANDOVER_TAKEN = 5,
	VSOCK_HANDOVER_KINDS,
};

struct vsock_handover_msg {
	enum vsock_handover_kind kind;
	struct vsock_conn_saved conn; /* CONN; PENDING: timer_usec; RESET: key */
	uint32_t count;               /* END */
};

void vsock_handover_put(
	uint8_t out[static VSOCK_HANDOVER_BYTES], const struct vsock_handover_msg *m);

/* LEN bytes with N_FDS beside them; the ring's bytes lie behind the first VSOCK_HANDOVER_BYTES. 0 or -EBADMSG. */
int vsock_handover_get(
	const uint8_t *bytes, size_t len, size_t n_fds, struct vsock_handover_msg *ret);
