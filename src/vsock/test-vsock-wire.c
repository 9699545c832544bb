#include <errno.h>
#include <string.h>

#include "unit.h"
#include "vsock-wire.h"

static void there_and_back(void **state)
{
	const struct vsock_pkt p = { .src_cid = 1,
		.dst_cid = 2,
		.src_port = 3,
		.dst_port = 4,
		.len = 5,
		.type = 6,
		.op = 7,
		.flags = 8,
		.buf_alloc = 9,
		.fwd_cnt = 10 };
	uint8_t bytes[VSOCK_HEADER_BYTES], again[VSOCK_HEADER_BYTES];
	struct vsock_pkt got;

	vsock_wire_put(bytes, &p);
	assert_int_equal(bytes[0], 1); /* little-endian */
	assert_int_equal(bytes[30], 7);
	assert_int_equal(vsock_wire_get(bytes, sizeof bytes, &got), 0);
	vsock_wire_put(again, &got);
	assert_memory_equal(again, bytes, sizeof bytes);
	assert_int_equal(got.fwd_cnt, 10);
	assert_int_equal(vsock_wire_get(bytes, 43, &got), -EBADMSG);
	assert_int_equal(vsock_wire_get(bytes, 45, &got), -EBADMSG);
}

static void names(void **state)
{
	for (uint16_t op = 0; op < VSOCK_OP_END; op++)
		assert_non_null(vsock_wire_op_name(op));
	assert_string_equal(vsock_wire_op_name(VSOCK_OP_END), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(there_and_back),
		cmocka_unit_test(names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
