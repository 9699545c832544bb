#include "keeper-wire.h"

#include <errno.h>
#include <string.h>

#include "unit.h"

static int get(uint8_t op, uint8_t slot, uint32_t cookie, size_t n_fds)
{
	uint8_t bytes[KEEPER_WIRE_BYTES];
	struct keeper_msg m;

	keeper_wire_put(bytes, &(struct keeper_msg){ op, slot, cookie });
	return keeper_wire_get(bytes, sizeof bytes, n_fds, &m);
}

static void round_trip(void **state)
{
	const struct keeper_msg all[] = { { KEEPER_KEEP, 7, 0 },
		{ KEEPER_DROP, KEEPER_SLOTS - 1, 0 }, { KEEPER_GO, 0, 0 }, { KEEPER_UP, 0, 0 },
		{ KEEPER_SERVED, 0, 0 }, { KEEPER_PING, 0, 0xfedcba98 }, { KEEPER_PONG, 0, 1 },
		{ KEEPER_HANDOVER, 0, 0 }, { KEEPER_STAYS, 0, 0 }, { KEEPER_WAITS, 0, 0 } };

	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		uint8_t bytes[KEEPER_WIRE_BYTES + 1] = { 0 };
		size_t n_fds = all[i].op == KEEPER_KEEP || all[i].op == KEEPER_HANDOVER;
		struct keeper_msg m;

		keeper_wire_put(bytes, &all[i]);
		assert_int_equal(keeper_wire_get(bytes, KEEPER_WIRE_BYTES, n_fds, &m), 0);
		assert_int_equal(keeper_wire_get(bytes, KEEPER_WIRE_BYTES, !n_fds, &m), -EBADMSG);
		assert_int_equal(m.op, all[i].op);
		assert_int_equal(m.slot, all[i].slot);
		assert_int_equal(m.cookie, all[i].cookie);
		for (size_t len = 0; len <= sizeof bytes; len++) {
			if (len != KEEPER_WIRE_BYTES)
				assert_int_equal(keeper_wire_get(bytes, len, n_fds, &m), -EBADMSG);
		}
	}
}

static void refusals(void **state)
{
	uint8_t bytes[KEEPER_WIRE_BYTES] = { KEEPER_UP, 0, 0, 1 };
	struct keeper_msg m;

	assert_int_equal(get(0, 0, 0, 0), -EBADMSG);
	assert_int_equal(get(KEEPER_OPS, 0, 0, 0), -EBADMSG);
	assert_int_equal(get(255, 0, 0, 0), -EBADMSG);
	assert_int_equal(get(KEEPER_KEEP, KEEPER_SLOTS, 0, 1), -EBADMSG);
	assert_int_equal(get(KEEPER_KEEP, KEEPER_SLOT_NONE, 0, 1), -EBADMSG);
	assert_int_equal(get(KEEPER_KEEP, 0, 0, 0), -EBADMSG);
	assert_int_equal(get(KEEPER_KEEP, 0, 0, 2), -EBADMSG);
	assert_int_equal(get(KEEPER_KEEP, 0, 1, 1), -EBADMSG);
	assert_int_equal(get(KEEPER_DROP, 0, 0, 1), -EBADMSG);
	assert_int_equal(get(KEEPER_UP, 1, 0, 0), -EBADMSG);
	assert_int_equal(get(KEEPER_UP, 0, 1, 0), -EBADMSG);
	assert_int_equal(get(KEEPER_PONG, 0, 1, 1), -EBADMSG);
	assert_int_equal(keeper_wire_get(bytes, sizeof bytes, 0, &m), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
