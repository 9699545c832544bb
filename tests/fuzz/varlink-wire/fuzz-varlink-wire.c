/* Calls and replies from bytes; what decodes must encode and decode again to the same. */
#include <assert.h>
#include <json-c/json.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "varlink-wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void call(const char *text, size_t len)
{
	struct varlink_call a, b;
	char *again;
	size_t n;

	if (varlink_call_decode(text, len, &a) < 0)
		return;
	if (varlink_call_encode(&a, &again, &n) == 0) {
		assert(varlink_call_decode(again, n - 1, &b) == 0);
		assert(strcmp(a.method, b.method) == 0 && a.more == b.more && a.oneway == b.oneway);
		varlink_call_finish(&b);
		free(again);
	}
	varlink_call_finish(&a);
}

static void reply(const char *text, size_t len)
{
	struct varlink_reply a, b;
	char *again;
	size_t n;

	if (varlink_reply_decode(text, len, &a) < 0)
		return;
	if (varlink_reply_encode(&a, &again, &n) == 0) {
		assert(varlink_reply_decode(again, n - 1, &b) == 0);
		assert(strcmp(a.error, b.error) == 0 && a.continues == b.continues);
		varlink_reply_finish(&b);
		free(again);
	}
	varlink_reply_finish(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	call((const char *)data, size);
	reply((const char *)data, size);
	return 0;
}
