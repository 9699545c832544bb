/* One message of the broker's channel; the first byte says how many descriptors came beside it. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "broker-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t again[BROKER_WIRE_BYTES];
	struct broker_msg m;

	if (size == 0 || broker_wire_get(data + 1, size - 1, data[0], &m) < 0)
		return 0;
	broker_wire_put(again, &m);
	if (memcmp(again, data + 1, sizeof again) != 0)
		abort();
	return 0;
}
