/*
 * vhost-user messages as bytes (QEMU docs/interop/vhost-user.rst). Pure: no I/O, no allocation; the
 * exact length is checked before the first byte is looked at. Numbers are in host order, as the
 * protocol wants, so these bytes never leave the machine.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VU_WIRE_HEADER_BYTES  12
#define VU_WIRE_PAYLOAD_MAX   272 /* GET_CONFIG: 12 bytes and 256 of configuration space */
#define VU_WIRE_REGIONS_MAX   8
#define VU_WIRE_FDS_MAX       8
#define VU_WIRE_CONFIG_MAX    256
#define VU_WIRE_CONFIG_HEADER 12

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_REQUEST_END, /* one past the last */
};

#define VU_FLAG_VERSION_MASK  0x3u
#define VU_FLAG_VERSION       0x1u
#define VU_FLAG_REPLY         0x4u
#define VU_FLAG_NEED_REPLY    0x8u

#define VU_FEATURE_PROTOCOL   30 /* VHOST_USER_F_PROTOCOL_FEATURES */

#define VU_PROTOCOL_MQ        0
#define VU_PROTOCOL_REPLY_ACK 3
#define VU_PROTOCOL_CONFIG    9

#define VU_VRING_INDEX_MASK   0xffu
#define VU_VRING_NO_FD        0x100u

struct vu_header {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* bytes of payload */
};

/* What a request must look like. */
struct vu_shape {
	const char *name; /* NULL: not a request that we know */
	uint16_t size_min, size_max;
	uint8_t fds_min, fds_max;
	bool replies; /* has a reply of its own, so none for NEED_REPLY */
};

struct vu_vring_state {
	uint32_t index, num;
};

struct vu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail, log; /* user addresses of the front-end */
};

struct vu_region {
	uint64_t gpa, size, user, offset;
};

struct vu_mem_table {
	uint32_t n;
	struct vu_region regions[VU_WIRE_REGIONS_MAX];
};

struct vu_config {
	uint32_t offset, size, flags;
};

/* NULL for a request that is unknown or unsupported. */
const struct vu_shape *vu_wire_shape(uint32_t request);

/*
 * LEN is VU_WIRE_HEADER_BYTES. -EBADMSG for a wrong version or flag or a size outside the shape,
 * -EOPNOTSUPP for an unknown request.
 */
int vu_wire_get_header(const uint8_t *bytes, size_t len, struct vu_header *ret);

/* Each: -EBADMSG unless LEN is exactly right and the reserved parts are zero. */
int vu_wire_get_u64(const uint8_t *bytes, size_t len, uint64_t *ret);
int vu_wire_get_vring_state(const uint8_t *bytes, size_t len, struct vu_vring_state *ret);
int vu_wire_get_vring_addr(const uint8_t *bytes, size_t len, struct vu_vring_addr *ret);
int vu_wire_get_mem_table(const uint8_t *bytes, size_t len, struct vu_mem_table *ret);
int vu_wire_get_config(const uint8_t *bytes, size_t len, struct vu_config *ret);

/* Writes the header of a reply to REQUEST with SIZE bytes of payload. */
void vu_wire_put_reply(uint8_t out[static VU_WIRE_HEADER_BYTES], uint32_t request, uint32_t size);
