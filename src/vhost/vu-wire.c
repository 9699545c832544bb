#include "vu-wire.h"

#include <errno.h>
#include <string.h>

static const struct vu_shape vu_shapes[VU_REQUEST_END] = {
	[VU_GET_FEATURES] = { "GET_FEATURES", 0, 0, 0, 0, true },
	[VU_SET_FEATURES] = { "SET_FEATURES", 8, 8, 0, 0, false },
	[VU_SET_OWNER] = { "SET_OWNER", 0, 0, 0, 0, false },
	[VU_RESET_OWNER] = { "RESET_OWNER", 0, 0, 0, 0, false },
	[VU_SET_MEM_TABLE] = { "SET_MEM_TABLE", 8 + 32, 8 + 32 * VU_WIRE_REGIONS_MAX, 1,
		VU_WIRE_REGIONS_MAX, false },
	[VU_SET_VRING_NUM] = { "SET_VRING_NUM", 8, 8, 0, 0, false },
	[VU_SET_VRING_ADDR] = { "SET_VRING_ADDR", 40, 40, 0, 0, false },
	[VU_SET_VRING_BASE] = { "SET_VRING_BASE", 8, 8, 0, 0, false },
	[VU_GET_VRING_BASE] = { "GET_VRING_BASE", 8, 8, 0, 0, true },
	[VU_SET_VRING_KICK] = { "SET_VRING_KICK", 8, 8, 0, 1, false },
	[VU_SET_VRING_CALL] = { "SET_VRING_CALL", 8, 8, 0, 1, false },
	[VU_SET_VRING_ERR] = { "SET_VRING_ERR", 8, 8, 0, 1, false },
	[VU_GET_PROTOCOL_FEATURES] = { "GET_PROTOCOL_FEATURES", 0, 0, 0, 0, true },
	[VU_SET_PROTOCOL_FEATURES] = { "SET_PROTOCOL_FEATURES", 8, 8, 0, 0, false },
	[VU_GET_QUEUE_NUM] = { "GET_QUEUE_NUM", 0, 0, 0, 0, true },
	[VU_SET_VRING_ENABLE] = { "SET_VRING_ENABLE", 8, 8, 0, 0, false },
	[VU_GET_CONFIG] = { "GET_CONFIG", VU_WIRE_CONFIG_HEADER,
		VU_WIRE_CONFIG_HEADER + VU_WIRE_CONFIG_MAX, 0, 0, true },
	[VU_SET_CONFIG] = { "SET_CONFIG", VU_WIRE_CONFIG_HEADER,
		VU_WIRE_CONFIG_HEADER + VU_WIRE_CONFIG_MAX, 0, 0, false },
};

static uint32_t vu_get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

static uint64_t vu_get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof v);
	return v;
}

const struct vu_shape *vu_wire_shape(uint32_t request)
{
	if (request >= VU_REQUEST_END || !vu_shapes[request].name)
		return NULL;
	return &vu_shapes[request];
}

int vu_wire_get_header(const uint8_t *bytes, size_t len, struct vu_header *ret)
{
	const struct vu_shape *shape;
	struct vu_header h;

	if (len != VU_WIRE_HEADER_BYTES)
		return -EBADMSG;
	h = (struct vu_header){ vu_get32(bytes), vu_get32(bytes + 4), vu_get32(bytes + 8) };
	if ((h.flags & ~VU_FLAG_NEED_REPLY) != VU_FLAG_VERSION)
		return -EBADMSG;
	shape = vu_wire_shape(h.request);
	if (!shape)
		return -EOPNOTSUPP;
	if (h.size < shape->size_min || h.size > shape->size_max)
		return -EBADMSG;
	*ret = h;
	return 0;
}

int vu_wire_get_u64(const uint8_t *bytes, size_t len, uint64_t *ret)
{
	if (len != 8)
		return -EBADMSG;
	*ret = vu_get64(bytes);
	return 0;
}

int vu_wire_get_vring_state(const uint8_t *bytes, size_t len, struct vu_vring_state *ret)
{
	if (len != 8)
		return -EBADMSG;
	*ret = (struct vu_vring_state){ vu_get32(bytes), vu_get32(bytes + 4) };
	return 0;
}

int vu_wire_get_vring_addr(const uint8_t *bytes, size_t len, struct vu_vring_addr *ret)
{
	if (len != 40)
		return -EBADMSG;
	*ret = (struct vu_vring_addr){ vu_get32(bytes), vu_get32(bytes + 4), vu_get64(bytes + 8),
		vu_get64(bytes + 16), vu_get64(bytes + 24), vu_get64(bytes + 32) };
	return 0;
}

int vu_wire_get_mem_table(const uint8_t *bytes, size_t len, struct vu_mem_table *ret)
{
	uint32_t n;

	if (len < 8)
		return -EBADMSG;
	n = vu_get32(bytes);
	if (n == 0 || n > VU_WIRE_REGIONS_MAX || len != 8 + 32 * (size_t)n)
		return -EBADMSG;
	ret->n = n;
	for (uint32_t i = 0; i < n; i++) {
		const uint8_t *p = bytes + 8 + 32 * i;

		ret->regions[i] = (struct vu_region){ vu_get64(p), vu_get64(p + 8),
			vu_get64(p + 16), vu_get64(p + 24) };
	}
	return 0;
}

int vu_wire_get_config(const uint8_t *bytes, size_t len, struct vu_config *ret)
{
	struct vu_config c;

	if (len < VU_WIRE_CONFIG_HEADER)
		return -EBADMSG;
	c = (struct vu_config){ vu_get32(bytes), vu_get32(bytes + 4), vu_get32(bytes + 8) };
	if (c.size > VU_WIRE_CONFIG_MAX || len != VU_WIRE_CONFIG_HEADER + (size_t)c.size)
		return -EBADMSG;
	*ret = c;
	return 0;
}

void vu_wire_put_reply(uint8_t out[static VU_WIRE_HEADER_BYTES], uint32_t request, uint32_t size)
{
	const uint32_t words[] = { request, VU_FLAG_VERSION | VU_FLAG_REPLY, size };

	memcpy(out, words, sizeof words);
}
