/* A head, then a copy of the state: what is accepted comes out the same. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vu-state-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t page[VU_STATE_COPY_BYTES] = { 0 }, one[VU_STATE_COPY_BYTES];
	struct vu_state_head h;
	struct vu_state s, t;

	if (size < VU_STATE_HEAD_BYTES)
		return 0;
	vu_state_wire_get_head(data, VU_STATE_HEAD_BYTES, &h);
	data += VU_STATE_HEAD_BYTES;
	size -= VU_STATE_HEAD_BYTES;
	memcpy(page, data, size < sizeof page ? size : sizeof page);
	if (vu_state_wire_get(page, sizeof page, &s) < 0)
		return 0;
	if (s.table.n > VU_WIRE_REGIONS_MAX)
		abort();
	vu_state_wire_put(one, &s);
	if (vu_state_wire_get(one, sizeof one, &t) < 0)
		abort();
	vu_state_wire_put(page, &t);
	if (memcmp(one, page, sizeof one) != 0)
		abort();
	return 0;
}
