/* One message of the keeper's channel; the first byte says how many descriptors came beside it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "keeper-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t again[KEEPER_WIRE_BYTES];
	struct keeper_msg m;

	if (size == 0 || keeper_wire_get(data + 1, size - 1, data[0], &m) < 0)
		return 0;
	if (m.slot >= KEEPER_SLOTS)
		abort();
	keeper_wire_put(again, &m);
	if (memcmp(again, data + 1, sizeof again) != 0)
		abort();
	return 0;
}
