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

/* Addresses for what may be added as memory: only where something may be. */
static void room_for_what_is_added(void **state)
{
	static const struct {
		uint64_t most;
		uint32_t slots;
		const char *want;
	} all[] = {
		{ 0, 0, "256M" },
		{ 256 << 20, 0, "256M" },
		{ 1 << 30, 0, "256M,maxmem=1024M" },
		{ 0, 2, "256M,maxmem=8448M" },
		{ 1 << 30, 2, "256M,maxmem=9216M" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		CLEANUP(strv_freep) char **argv = NULL;
		struct vmm_config c = config();
		char **w;

		c.memory_max_bytes = all[i].most;
		c.hotplug_slots = all[i].slots;
		assert_int_equal(qemu_config_arguments(&c, &argv), 0);
		for (w = argv; *w && !str_eq(*w, "-m"); w++)
			;
		assert_string_equal(w[1], all[i].want);
		assert_int_equal(has(argv, "virtio-mem-pci"), all[i].most > 256 << 20);
		assert_int_equal(has(argv, "id=port1"), all[i].slots == 2);
		assert_int_equal(has(argv, "console=ttyS0 numa=off"), i > 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_restore_has_the_same_hardware),
		cmocka_unit_test(room_for_what_is_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
