#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "unit.h"
#include "vu-state-wire.h"

static struct vu_state good(void)
{
	struct vu_state s = { .features = 0x170000002, .protocol_features = 0x209 };

	memset(s.region_slots, KEEPER_SLOT_NONE, sizeof s.region_slots);
	s.table.n = 2;
	s.table.regions[0] = (struct vu_region){ 0, 4096, 0x7f0000000000, 0 };
	s.table.regions[1] = (struct vu_region){ 1ull << 32, 8192, 0x7f1000000000, 4096 };
	s.region_slots[0] = 0;
	s.region_slots[1] = 1;
	for (uint8_t i = 0; i < VU_STATE_QUEUES; i++)
		s.queues[i] = (struct vu_state_queue){ .num = 256,
			.base = (uint16_t)(7 + i),
			.stopped_at = 65535,
			.has_addr = true,
			.enabled = i != 1,
			.running = i != 2,
			.was_running = i == 2,
			.kick_slot = i == 2 ? KEEPER_SLOT_NONE : (uint8_t)(2 + i),
			.call_slot = (uint8_t)(10 + i),
			.err_slot = KEEPER_SLOT_NONE,
			.addr = { i, 0, 16, 32, 48, 64 } };
	return s;
}

static int through(const struct vu_state *in, struct vu_state *out)
{
	uint8_t bytes[VU_STATE_COPY_BYTES];

	vu_state_wire_put(bytes, in);
	return vu_state_wire_get(bytes, sizeof bytes, out);
}

static void round_trip(void **state)
{
	struct vu_state a = good(), b;
	uint8_t one[VU_STATE_COPY_BYTES], two[VU_STATE_COPY_BYTES];

	vu_state_wire_put(one, &a);
	assert_int_equal(vu_state_wire_get(one, sizeof one, &b), 0);
	vu_state_wire_put(two, &b);
	assert_memory_equal(one, two, sizeof one);
	assert_int_equal(b.queues[2].addr.avail, 48);
	assert_int_equal(b.queues[1].base, 8);
	assert_true(b.queues[2].was_running && !b.queues[2].running && !b.queues[1].enabled);
	for (size_t len = 0; len < sizeof one; len += 41)
		assert_int_equal(vu_state_wire_get(one, len, &b), -EBADMSG);
}

static void refusals(void **state)
{
	uint8_t bytes[VU_STATE_COPY_BYTES];
	struct vu_state b;

#define BAD(what)                                                                                  \
	do {                                                                                       \
		struct vu_state s = good();                                                        \
		what;                                                                              \
		assert_int_equal(through(&s, &b), -EBADMSG);                                       \
	} while (0)
	BAD(s.region_slots[1] = 0);
	BAD(s.region_slots[0] = KEEPER_SLOTS);
	BAD(s.queues[0].kick_slot = 1);
	BAD(s.queues[0].call_slot = 200);
	BAD(s.queues[0].err_slot = 10);
	BAD(s.queues[0].num = 3);
	BAD(s.queues[0].num = 2048);
	BAD(s.queues[0].num = 0);
	BAD(s.queues[1].has_addr = false);
#undef BAD
	struct vu_state s = good();

	vu_state_wire_put(bytes, &s);
	bytes[16] = 9; /* regions */
	assert_int_equal(vu_state_wire_get(bytes, sizeof bytes, &b), -EBADMSG);
}

static void heads(void **state)
{
	const struct {
		uint32_t words[4];
		int r;
	} cases[] = {
		{ { 0, 0, 0, 0 }, 0 },
		{ { VU_STATE_MAGIC, 1, 1, 0 }, 0 },
		{ { VU_STATE_MAGIC + 1, 0, 0, 0 }, -EBADMSG },
		{ { VU_STATE_MAGIC, 0, 2, 0 }, -EBADMSG },
		{ { VU_STATE_MAGIC, 3, 0, 0 }, -EBADMSG },
	};
	struct vu_state_head h;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(vu_state_wire_get_head(
					 (const uint8_t *)cases[i].words, VU_STATE_HEAD_BYTES, &h),
			cases[i].r);
	assert_int_equal(vu_state_wire_get_head((const uint8_t *)cases[0].words, 12, &h), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(refusals),
		cmocka_unit_test(heads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
