/* A stream of vhost-user messages: every parser, with the length that the header gives. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vu-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse_payload(const struct vu_header *h, const uint8_t *p, size_t n)
{
	struct vu_vring_state state;
	struct vu_vring_addr addr;
	struct vu_mem_table table;
	struct vu_config config;
	uint64_t v;

	if (vu_wire_get_mem_table(p, n, &table) == 0 && table.n > VU_WIRE_REGIONS_MAX)
		abort();
	if (vu_wire_get_config(p, n, &config) == 0 && config.size != n - VU_WIRE_CONFIG_HEADER)
		abort();
	vu_wire_get_u64(p, n, &v);
	vu_wire_get_vring_state(p, n, &state);
	vu_wire_get_vring_addr(p, n, &addr);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vu_header h;

	while (size >= VU_WIRE_HEADER_BYTES &&
		vu_wire_get_header(data, VU_WIRE_HEADER_BYTES, &h) == 0) {
		uint8_t *copy;

		data += VU_WIRE_HEADER_BYTES;
		size -= VU_WIRE_HEADER_BYTES;
		if (h.size > VU_WIRE_PAYLOAD_MAX && h.request != VU_SET_MEM_TABLE)
			abort();
		if (h.size > size)
			return 0;
		copy = malloc(h.size); /* of its own, so that one byte too far is seen */
		if (h.size > 0)
			memcpy(copy, data, h.size);
		parse_payload(&h, copy, h.size);
		free(copy);
		data += h.size;
		size -= h.size;
	}
	return 0;
}
