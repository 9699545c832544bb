/* A reply from bytes: what is whole stays whole and the same, however it is cut. */
#include <assert.h>
#include <stdint.h>

#include "http-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	struct http_reply a, b;

	if (http_wire_reply(bytes, size, &a) != 1)
		return 0;
	assert(a.status >= 200 && a.status <= 599);
	assert(a.total_len <= size && a.body_len <= a.total_len);
	assert(a.body + a.body_len == bytes + a.total_len);
	assert(http_wire_reply(bytes, a.total_len, &b) == 1);
	assert(a.status == b.status && a.body == b.body && a.body_len == b.body_len &&
		a.total_len == b.total_len);
	for (size_t n = 0; n < a.total_len && n < 512; n++)
		assert(http_wire_reply(bytes, n, &b) == 0);
	return 0;
}
