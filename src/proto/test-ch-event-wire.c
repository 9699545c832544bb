#include "ch-event-wire.h"

#include <errno.h>
#include <string.h>

#include "unit.h"

static const char two[] =
	"{\n  \"timestamp\": {\n    \"secs\": 0,\n    \"nanos\": 26614120\n  },\n"
	"  \"source\": \"vmm\",\n  \"event\": \"starting\",\n  \"properties\": null\n}\n\n"
	"{\n  \"timestamp\": {\n    \"secs\": 1,\n    \"nanos\": 1\n  },\n"
	"  \"source\": \"vm\",\n  \"event\": \"device-removed\",\n"
	"  \"properties\": {\n    \"bdf\": \"0000:00:06.0\",\n    \"id\": \"net1\"\n  }\n}\n\n";

static void stream(void **state)
{
	struct ch_event e;
	ssize_t n = ch_event_next(two, sizeof two - 1, &e), m;

	assert_true(n > 0);
	assert_string_equal(e.source, "vmm");
	assert_string_equal(e.event, "starting");
	assert_string_equal(e.id, "");
	m = ch_event_next(two + n, sizeof two - 1 - (size_t)n, &e);
	assert_int_equal(n + m, sizeof two - 1);
	assert_string_equal(e.source, "vm");
	assert_string_equal(e.event, "device-removed");
	assert_string_equal(e.id, "net1");
}

static void halves(void **state)
{
	struct ch_event e;
	size_t first = (size_t)ch_event_next(two, sizeof two - 1, &e);

	for (size_t n = 0; n < first; n++)
		assert_int_equal(ch_event_next(two, n, &e), 0);
}

/* What was lost in a full pipe costs the events it tore, not those after them. */
static void torn(void **state)
{
	char bytes[sizeof two];
	size_t len = sizeof two - 1 - 40, n;
	struct ch_event e;

	memcpy(bytes, two + 40, len);
	n = (size_t)ch_event_next(bytes, len, &e);
	assert_true(n > 0);
	assert_string_equal(e.source, "");
	assert_true(ch_event_next(bytes + n, len - n, &e) > 0);
	assert_string_equal(e.event, "device-removed");
}

static void limits(void **state)
{
	static char endless[CH_EVENT_MAX + 8];
	struct ch_event e;

	memset(endless, '{', sizeof endless);
	assert_int_equal(ch_event_next(endless, CH_EVENT_MAX - 1, &e), 0);
	assert_int_equal(ch_event_next(endless, sizeof endless, &e), -EMSGSIZE);
	assert_int_equal(ch_event_next("[1]\n\n", 5, &e), 5);
	assert_string_equal(e.source, "");
	assert_int_equal(ch_event_next("{\"source\":1,\"event\":null}\n\n", 27, &e), 27);
	assert_string_equal(e.source, "");
	assert_string_equal(e.event, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stream),
		cmocka_unit_test(halves),
		cmocka_unit_test(torn),
		cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
