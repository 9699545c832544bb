/* The header of a virtio-vsock packet (virtio 1.2, §5.10.6) as bytes. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define VSOCK_HEADER_BYTES 44

#define VSOCK_CID_HOST     2

enum vsock_type {
	VSOCK_TYPE_STREAM = 1,
	VSOCK_TYPE_SEQPACKET = 2,
};

enum vsock_op {
	VSOCK_OP_INVALID,
	VSOCK_OP_REQUEST,
	VSOCK_OP_RESPONSE,
	VSOCK_OP_RST,
	VSOCK_OP_SHUTDOWN,
	VSOCK_OP_RW,
	VSOCK_OP_CREDIT_UPDATE,
	VSOCK_OP_CREDIT_REQUEST,
	VSOCK_OP_END, /* one past the last */
};

/* flags of SHUTDOWN: what its sender will not do any more */
#define VSOCK_SHUTDOWN_RECV 0x1u
#define VSOCK_SHUTDOWN_SEND 0x2u
#define VSOCK_SHUTDOWN_BOTH 0x3u

struct vsock_pkt {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint32_t len;
	uint16_t type, op;
	uint32_t flags;
	uint32_t buf_alloc, fwd_cnt;
};

/* -EBADMSG unless LEN is VSOCK_HEADER_BYTES. The values are the sender's, unchecked. */
int vsock_wire_get(const uint8_t *bytes, size_t len, struct vsock_pkt *ret);
void vsock_wire_put(uint8_t out[static VSOCK_HEADER_BYTES], const struct vsock_pkt *p);

/* The name of an operation, "?" for what is none. */
const char *vsock_wire_op_name(uint16_t op);
