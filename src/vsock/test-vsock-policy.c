#include "unit.h"
#include "vsock-policy.h"

static void today_host_and_guest_only(void **state)
{
	static const uint32_t ports[] = { 0, 1, 22, VSOCK_PORT_AGENT, 1024, UINT32_MAX - 1 };

	for (size_t i = 0; i < sizeof ports / sizeof ports[0]; i++) {
		assert_true(vsock_policy_allows(VSOCK_GUEST_TO_HOST, ports[i]));
		assert_true(vsock_policy_allows(VSOCK_HOST_TO_GUEST, ports[i]));
		assert_false(vsock_policy_allows(VSOCK_SIBLING_TO_GUEST, ports[i]));
		assert_false(vsock_policy_allows(VSOCK_GUEST_TO_SIBLING, ports[i]));
	}
}

static void port_any_is_no_port(void **state)
{
	for (int way = VSOCK_GUEST_TO_HOST; way <= VSOCK_GUEST_TO_SIBLING; way++)
		assert_false(vsock_policy_allows((enum vsock_way)way, UINT32_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(today_host_and_guest_only),
		cmocka_unit_test(port_any_is_no_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
