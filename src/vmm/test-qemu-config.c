#include <string.h>

#include "cleanup.h"
#include "qemu-config.h"
#include "str.h"
#include "unit.h"
#include "vmm.h"

static struct vmm_config config(void)
{
	static const struct vmm_disk disks[] = { { "layer0", true }, { "volume0", false } };

	return (struct vmm_config){ .name = "vm",
		.uuid = "00000000-0000-0000-0000-000000000000",
		.accel = "tcg",
		.kernel_cmdline = "console=ttyS0",
		.disks = disks,
		.n_disks = 2,
		.memory_bytes = 256 << 20,
		.cpus = 1 };
}

static bool has(char **argv, const char *word)
{
	for (; argv && *argv; argv++) {
		if (strstr(*argv, word))
			return true;
	}
	return false;
}

/* But for the vsock device, which what was saved had not, and the way in. */
static void a_restore_has_the_same_hardware(void **state)
{
	CLEANUP(strv_freep) char **boot = NULL, **restore = NULL;
	struct vmm_config c = config();
	size_t same = 0;

	assert_int_equal(qemu_config_arguments(&c, &boot), 0);
	c.restore = "/s/vmm";
	assert_int_equal(qemu_config_arguments(&c, &restore), 0);
	assert_true(has(boot, QEMU_VSOCK_DRIVER));
	assert_false(has(boot, "-incoming"));
	assert_false(has(restore, QEMU_VSOCK_DRIVER));
	assert_true(has(restore, "id=" QEMU_VSOCK_PORT));
	assert_true(has(restore, "socket,id=vsock,"));
	assert_true(has(restore, "-S") && has(restore, "-incoming") && has(restore, "defer"));
	for (char **w = boot; *w; w++)
		same += has(restore, *w);
	/* all but the device's own words; its "-device" others have, too */
	assert_int_equal(same, strv_length(boot) - 1);
	assert_int_equal(strv_length(restore), strv_length(boot) - 2 + 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_restore_has_the_same_hardware),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
