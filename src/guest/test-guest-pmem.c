/* Which persistent memory is meant, where the guest sees only sizes. */
#include <errno.h>

#include "cleanup.h"
#include "guest-pmem.h"
#include "unit.h"

#define MIB (UINT64_C(1) << 20)

static void by_its_size(void **state)
{
	static const struct guest_pmem_disk disks[] = { { "pmem0", 2 * MIB, true },
		{ "pmem1", 4 * MIB, false }, { "pmem2", 2 * MIB, false },
		{ "pmem3", 2 * MIB, false }, { "pmem4", 6 * MIB, true } };

	assert_int_equal(guest_pmem_choose(disks, 0, 4 * MIB), -EAGAIN);
	assert_int_equal(guest_pmem_choose(disks, 5, 4 * MIB), 1);
	assert_int_equal(guest_pmem_choose(disks, 5, 6 * MIB), -EAGAIN);
	assert_int_equal(guest_pmem_choose(disks, 5, 4 * MIB - 512), -EAGAIN);
	/* what is mounted is none of them */
	assert_int_equal(guest_pmem_choose(disks, 3, 2 * MIB), 2);
	assert_int_equal(guest_pmem_choose(disks, 4, 2 * MIB), -ENOTUNIQ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(by_its_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
