#include <errno.h>
#include <string.h>

#include "unit.h"
#include "vu-wire.h"

static void headers(void **state)
{
	const struct {
		uint32_t words[3];
		size_t len;
		int r;
	} cases[] = {
		{ { VU_GET_FEATURES, 1, 0 }, 12, 0 },
		{ { VU_GET_FEATURES, 1 | 8, 0 }, 12, 0 },
		{ { VU_GET_FEATURES, 1, 0 }, 11, -EBADMSG },
		{ { VU_GET_FEATURES, 0, 0 }, 12, -EBADMSG },
		{ { VU_GET_FEATURES, 1 | 4, 0 }, 12, -EBADMSG },
		{ { VU_GET_FEATURES, 1, 1 }, 12, -EBADMSG },
		{ { VU_SET_FEATURES, 1, UINT32_MAX }, 12, -EBADMSG },
		{ { 0, 1, 0 }, 12, -EOPNOTSUPP },
		{ { VU_REQUEST_END, 1, 0 }, 12, -EOPNOTSUPP },
		{ { UINT32_MAX, 1, 0 }, 12, -EOPNOTSUPP },
	};
	struct vu_header h;

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(
			vu_wire_get_header((const uint8_t *)cases[i].words, cases[i].len, &h),
			cases[i].r);
}

static void mem_tables(void **state)
{
	uint64_t words[9] = { 2, 10, 20, 30, 40, 50, 60, 70, 80 };
	struct vu_mem_table t;

	assert_int_equal(vu_wire_get_mem_table((uint8_t *)words, 72, &t), 0);
	assert_int_equal(t.n, 2);
	assert_int_equal(t.regions[1].offset, 80);
	assert_int_equal(vu_wire_get_mem_table((uint8_t *)words, 71, &t), -EBADMSG);
	assert_int_equal(vu_wire_get_mem_table((uint8_t *)words, 40, &t), -EBADMSG);
	words[0] = 9;
	assert_int_equal(vu_wire_get_mem_table((uint8_t *)words, 72, &t), -EBADMSG);
	words[0] = 0;
	assert_int_equal(vu_wire_get_mem_table((uint8_t *)words, 8, &t), -EBADMSG);
}

static void configs(void **state)
{
	uint32_t words[5] = { 4, 8, 1, 0, 0 };
	struct vu_config c;

	assert_int_equal(vu_wire_get_config((uint8_t *)words, 20, &c), 0);
	assert_int_equal(c.offset, 4);
	assert_int_equal(vu_wire_get_config((uint8_t *)words, 19, &c), -EBADMSG);
	words[1] = UINT32_MAX;
	assert_int_equal(vu_wire_get_config((uint8_t *)words, 20, &c), -EBADMSG);
}

static void replies(void **state)
{
	const uint32_t want[] = { 7, 5, 9 };
	uint8_t out[VU_WIRE_HEADER_BYTES];

	vu_wire_put_reply(out, 7, 9);
	assert_memory_equal(out, want, sizeof want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers),
		cmocka_unit_test(mem_tables),
		cmocka_unit_test(configs),
		cmocka_unit_test(replies),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
