/* Events from bytes: all of them are taken, one after the other, whatever they are. */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "ch-event-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	size_t at = 0;
	ssize_t n;

	do {
		struct ch_event e;

		n = ch_event_next(bytes + at, size - at, &e);
		if (n <= 0)
			break;
		at += (size_t)n;
		assert(at <= size);
		assert(memchr(e.source, 0, sizeof e.source) && memchr(e.event, 0, sizeof e.event) &&
			memchr(e.id, 0, sizeof e.id));
	} while (at < size);
	return 0;
}
