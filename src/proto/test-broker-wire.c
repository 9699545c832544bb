#include "broker-wire.h"

#include <errno.h>

#include "unit.h"

static void round_trip(void **state)
{
	const struct broker_msg all[] = { { BROKER_DIAL, 31, 0xfedcba98 }, { BROKER_DIALED, 0, 1 },
		{ BROKER_REFUSED, 0, 0 } };

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		uint8_t bytes[BROKER_WIRE_BYTES + 1] = { 0 };
		size_t n_fds = all[i].op == BROKER_DIALED;
		struct broker_msg m;

		broker_wire_put(bytes, &all[i]);
		assert_int_equal(broker_wire_get(bytes, BROKER_WIRE_BYTES, n_fds, &m), 0);
		assert_int_equal(m.op, all[i].op);
		assert_int_equal(m.rule, all[i].rule);
		assert_int_equal(m.id, all[i].id);
		assert_int_equal(broker_wire_get(bytes, BROKER_WIRE_BYTES, !n_fds, &m), -EBADMSG);
		for (size_t len = 0; len <= sizeof bytes; len++) {
			if (len != BROKER_WIRE_BYTES)
				assert_int_equal(broker_wire_get(bytes, len, n_fds, &m), -EBADMSG);
		}
	}
}

static void refusals(void **state)
{
	static const uint8_t bad[][BROKER_WIRE_BYTES] = { { 0 }, { BROKER_OPS }, { 255 },
		{ BROKER_DIALED, 1 }, { BROKER_REFUSED, 1 }, { BROKER_DIAL, 0, 1 },
		{ BROKER_DIAL, 0, 0, 1 } };
	struct broker_msg m;

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(broker_wire_get(bad[i], BROKER_WIRE_BYTES, 0, &m), -EBADMSG);
		assert_int_equal(broker_wire_get(bad[i], BROKER_WIRE_BYTES, 1, &m), -EBADMSG);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
