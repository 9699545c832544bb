#include <errno.h>
#include <string.h>

#include "unit.h"
#include "vsock-host.h"

static void lines(void **state)
{
	const struct {
		const char *line;
		int r;
		uint32_t port;
	} cases[] = {
		{ "CONNECT 0\n", 0, 0 },
		{ "CONNECT 1023\n", 0, 1023 },
		{ "CONNECT 4294967295\n", 0, UINT32_MAX },
		{ "CONNECT 4294967296\n", -EINVAL, 0 },
		{ "CONNECT 00000000001\n", -EINVAL, 0 },
		{ "CONNECT \n", -EINVAL, 0 },
		{ "CONNECT 1", -EINVAL, 0 },
		{ "CONNECT 1 \n", -EINVAL, 0 },
		{ "CONNECT 1\n\n", -EINVAL, 0 },
		{ "CONNECt 1\n", -EINVAL, 0 },
		{ "", -EINVAL, 0 },
	};

	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint32_t port = 0;

		assert_int_equal(
			vsock_host_parse(cases[i].line, strlen(cases[i].line), &port), cases[i].r);
		assert_int_equal(port, cases[i].port);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(lines) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
