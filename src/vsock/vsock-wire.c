#include "vsock-wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

static uint16_t vsock_get16(const uint8_t *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return le16toh(v);
}

static uint32_t vsock_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return le32toh(v);
}

static uint64_t vsock_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return le64toh(v);
}

static void vsock_put16(uint8_t *p, uint16_t v)
{
	v = htole16(v);
	memcpy(p, &v, sizeof v);
}

static void vsock_put32(uint8_t *p, uint32_t v)
{
	v = htole32(v);
	memcpy(p, &v, sizeof v);
}

static void vsock_put64(uint8_t *p, uint64_t v)
{
	v = htole64(v);
	memcpy(p, &v, sizeof v);
}

int vsock_wire_get(const uint8_t *bytes, size_t len, struct vsock_pkt *ret)
{
	if (len != VSOCK_HEADER_BYTES)
		return -EBADMSG;
	*ret = (struct vsock_pkt){
		.src_cid = vsock_get64(bytes),
		.dst_cid = vsock_get64(bytes + 8),
		.src_port = vsock_get32(bytes + 16),
		.dst_port = vsock_get32(bytes + 20),
		.len = vsock_get32(bytes + 24),
		.type = vsock_get16(bytes + 28),
		.op = vsock_get16(bytes + 30),
		.flags = vsock_get32(bytes + 32),
		.buf_alloc = vsock_get32(bytes + 36),
		.fwd_cnt = vsock_get32(bytes + 40),
	};
	return 0;
}

void vsock_wire_put(uint8_t out[static VSOCK_HEADER_BYTES], const struct vsock_pkt *p)
{
	vsock_put64(out, p->src_cid);
	vsock_put64(out + 8, p->dst_cid);
	vsock_put32(out + 16, p->src_port);
	vsock_put32(out + 20, p->dst_port);
	vsock_put32(out + 24, p->len);
	vsock_put16(out + 28, p->type);
	vsock_put16(out + 30, p->op);
	vsock_put32(out + 32, p->flags);
	vsock_put32(out + 36, p->buf_alloc);
	vsock_put32(out + 40, p->fwd_cnt);
}

const char *vsock_wire_op_name(uint16_t op)
{
	static const char *const names[VSOCK_OP_END] = {
		[VSOCK_OP_INVALID] = "INVALID",
		[VSOCK_OP_REQUEST] = "REQUEST",
		[VSOCK_OP_RESPONSE] = "RESPONSE",
		[VSOCK_OP_RST] = "RST",
		[VSOCK_OP_SHUTDOWN] = "SHUTDOWN",
		[VSOCK_OP_RW] = "RW",
		[VSOCK_OP_CREDIT_UPDATE] = "CREDIT_UPDATE",
		[VSOCK_OP_CREDIT_REQUEST] = "CREDIT_REQUEST",
	};

	return op < VSOCK_OP_END ? names[op] : "?";
}
