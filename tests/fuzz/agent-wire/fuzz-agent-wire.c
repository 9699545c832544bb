/* What decodes must encode to the same bytes; nothing may read outside the input. */
#include "agent-wire.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[AGENT_WIRE_FRAME_MAX];

	while (size > 0) {
		struct agent_wire_msg m;
		ssize_t n = agent_wire_decode(data, size, &m);

		if (n <= 0)
			break;
		assert((size_t)n <= size);
		assert(agent_wire_encode(&m, again, sizeof again) == n);
		assert(memcmp(again, data, (size_t)n) == 0);
		data += n;
		size -= (size_t)n;
	}
	return 0;
}
