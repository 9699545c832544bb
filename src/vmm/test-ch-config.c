/* What Cloud Hypervisor is told: all that it must be told, in the words of its version, and nothing else. */
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "ch-config.h"
#include "cleanup.h"
#include "json-codec.h"
#include "str.h"
#include "unit.h"
#include "vmm-impl.h"

static const char *const strings[] = { "io.systemd.credential:a=b", "x\"\\\x01/", NULL };
static const struct vmm_disk disks[] = { { "layer0", true }, { "volume0", false } };

static struct vmm_config config(uint32_t version)
{
	return (struct vmm_config){ .name = "vm",
		.uuid = "01234567-89ab-cdef-0123-456789abcdef",
		.accel = "kvm",
		.kernel_cmdline = "console=ttyS0 \"quoted\"",
		.net_mac = "02:00:00:00:00:01",
		.oem_strings = strings,
		.disks = disks,
		.n_disks = ARRAY_SIZE(disks),
		.memory_bytes = UINT64_C(1) << 40,
		.cpus = 3,
		.version = version };
}

/* The value at PATH ("a.b.0.c") as JSON; NULL: there is none. */
static const char *at(struct json_object *o, const char *path)
{
	CLEANUP_FREE char *copy = strdup(path);

	for (char *rest = copy, *key; (key = strsep(&rest, ".")) && o;) {
		if (json_object_is_type(o, json_type_array))
			o = json_object_array_get_idx(o, strtoul(key, NULL, 10));
		else if (!json_object_object_get_ex(o, key, &o))
			o = NULL;
	}
	return o ? json_object_to_json_string_ext(
			   o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE)
		 : NULL;
}

static struct json_object *vm(const struct vmm_config *c)
{
	CLEANUP_FREE char *text = ch_config_vm(c);
	struct json_object *o = NULL;

	assert_non_null(text);
	assert_null(strchr(text, '\n'));
	assert_int_equal(json_codec_parse(text, strlen(text), &o), 0);
	return o;
}

struct want {
	const char *path, *value;
};

static void check(struct json_object *o, const struct want *want, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char *got = at(o, want[i].path);

		if (!str_eq(str_or(got, ""), str_or(want[i].value, "")))
			fail_msg("%s: %s, want %s", want[i].path, str_or(got, "nothing"),
				str_or(want[i].value, "nothing"));
	}
}

static void everything_is_said(void **state)
{
	static const struct want want[] = {
		{ "cpus", "{\"boot_vcpus\":3,\"max_vcpus\":3}" },
		{ "memory", "{\"size\":1099511627776,\"shared\":false}" },
		{ "payload.kernel", "\"/proc/self/fd/7\"" },
		{ "payload.initramfs", "\"/proc/self/fd/8\"" },
		{ "payload.cmdline", "\"console=ttyS0 \\\"quoted\\\"\"" },
		{ "disks.0", "{\"id\":\"disk0\",\"path\":\"/proc/self/fd/10\",\"readonly\":true,"
			     "\"serial\":\"layer0\",\"image_type\":\"Raw\"}" },
		{ "disks.1", "{\"id\":\"disk1\",\"path\":\"/proc/self/fd/11\",\"readonly\":false,"
			     "\"serial\":\"volume0\",\"image_type\":\"Raw\"}" },
		{ "disks.2", NULL },
		{ "generic_vhost_user", NULL },
		{ "net", NULL }, /* vm.create takes no descriptors */
		{ "platform.oem_strings.0", "\"io.systemd.credential:a=b\"" },
		{ "platform.oem_strings.1", "\"x\\\"\\\\\\u0001/\"" },
		{ "vsock", "{\"id\":\"vsock0\",\"cid\":\"{cid}\",\"socket\":\"./v\"}" },
		{ "rng", "{\"src\":\"/dev/urandom\"}" },
		{ "serial", "{\"mode\":\"Tty\"}" },
		{ "console", "{\"mode\":\"Off\"}" },
		{ "pvpanic", "true" },
		{ "watchdog", "true" },
		{ "balloon.free_page_reporting", "true" },
		{ "landlock_enable", NULL },
		{ "landlock_rules", NULL },
	};
	const struct vmm_config c = config(53);
	struct json_object *o = vm(&c);

	check(o, want, ARRAY_SIZE(want));
	json_object_put(o);
}

/* Unknown fields are ignored without a word: so each version gets its own. */
static void each_version_by_its_words(void **state)
{
	static const struct want old[] = {
		{ "platform.uuid", "\"01234567-89ab-cdef-0123-456789abcdef\"" },
		{ "platform.serial_number", "\"vm\"" },
		{ "platform.system_uuid", NULL },
	};
	static const struct want new[] = {
		{ "platform.system_uuid", "\"01234567-89ab-cdef-0123-456789abcdef\"" },
		{ "platform.system_serial_number", "\"vm\"" },
		{ "platform.uuid", NULL },
	};

	for (uint32_t version = 48; version <= 54; version++) {
		const struct vmm_config c = config(version);
		struct json_object *o = vm(&c);

		check(o, version < 53 ? old : new, 3);
		json_object_put(o);
	}
}

static void landlock_when_the_kernel_has_it(void **state)
{
	static const char *const dirs[] = { "/a", "/b", NULL };
	struct vmm_config c = config(53);
	struct json_object *o;

	c.landlock = true;
	c.landlock_dirs = dirs;
	o = vm(&c);
	assert_string_equal(at(o, "landlock_enable"), "true");
	assert_string_equal(at(o, "landlock_rules"),
		"[{\"path\":\"/a\",\"access\":\"rw\"},{\"path\":\"/b\",\"access\":\"rw\"}]");
	json_object_put(o);
}

/* Ours: shared memory, exactly its queues, and no device of its own beside it. From v52 on. */
static void the_vsock_device(void **state)
{
	static const struct want want[] = {
		{ "memory.shared", "true" },
		{ "vsock", NULL },
		{ "generic_vhost_user", "[{\"id\":\"vsock0\",\"socket\":\"/proc/self/fd/6\","
					"\"device_type\":19,\"queue_sizes\":[128,128,128]}]" },
	};
	struct vmm_config c = config(52);
	CLEANUP_FREE char *fine = NULL, *old = NULL;
	struct json_object *o;

	c.vsock_device = true;
	o = vm(&c);
	check(o, want, ARRAY_SIZE(want));
	json_object_put(o);
	fine = vmm_backend_ch.check(&c);
	assert_null(fine);
	c.version = 51;
	old = vmm_backend_ch.check(&c);
	assert_string_equal(old, "vsock by uvms's own device: not supported by "
				 "cloud-hypervisor 51, 52 is needed");
}

static void the_link(void **state)
{
	const struct vmm_config c = config(53);
	CLEANUP_FREE char *text = ch_config_net(c.net_mac);

	assert_string_equal(text,
		"{\"id\":\"net0\",\"mac\":\"02:00:00:00:00:01\",\"offload_tso\":false,"
		"\"offload_ufo\":false,\"offload_csum\":false}");
}

/* All of them are as old as the oldest version that is taken. */
static void what_is_added(void **state)
{
	const struct vmm_op disk = { .id = "v-d", .path = "/v/d.img", .serial = "d" };
	const struct vmm_op pmem = { .id = "l-1", .path = "/s/\"1", .bytes = 4 << 20 };
	const struct vmm_op fs = { .id = "s-1", .path = "s/1", .tag = "one" };
	CLEANUP_FREE char *a = ch_config_disk(&disk), *b = ch_config_pmem(&pmem),
			  *c = ch_config_fs(&fs);

	assert_string_equal(a, "{\"id\":\"v-d\",\"path\":\"/v/d.img\",\"serial\":\"d\","
			       "\"image_type\":\"Raw\"}");
	assert_string_equal(b, "{\"id\":\"l-1\",\"file\":\"/s/\\\"1\",\"size\":4194304,"
			       "\"discard_writes\":true}");
	assert_string_equal(c, "{\"id\":\"s-1\",\"tag\":\"one\",\"socket\":\"s/1\","
			       "\"num_queues\":1,\"queue_size\":1024}");
}

/* The order of the calls, and the arguments, by version. */
static void the_plan(void **state)
{
	struct vmm_config c = config(53);
	CLEANUP(strv_freep) char **calls = NULL, **argv = NULL, **old = NULL;
	static const char *const names[] = { "GET vmm.ping", "PUT vm.create {", "PUT vm.add-net {",
		"PUT vm.boot" };

	assert_int_equal(vmm_backend_ch.calls(&c, &calls), 0);
	assert_int_equal(strv_length(calls), ARRAY_SIZE(names));
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		assert_true(str_has_prefix(calls[i], names[i]));
	assert_int_equal(vmm_backend_ch.arguments(&c, &argv), 0);
	assert_int_equal(strv_length(argv), 7);
	assert_string_equal(argv[6], "--no-shutdown");
	c.version = 51;
	assert_int_equal(vmm_backend_ch.arguments(&c, &old), 0);
	assert_int_equal(strv_length(old), 6);
}

static void what_cannot_be_is_said(void **state)
{
	static const struct vmm_disk read_only[] = { { "layer0", true } };
	struct vmm_config c = config(48);
	CLEANUP_FREE char *volumes = vmm_backend_ch.check(&c), *fine = NULL, *slow = NULL,
			  *long_ = NULL, *line = malloc(64 * 1024);

	assert_string_equal(volumes, "volumes: not supported by cloud-hypervisor 48, 50 is needed");
	c.disks = read_only;
	c.n_disks = 1;
	fine = vmm_backend_ch.check(&c);
	assert_null(fine);
	memset(line, 'x', 64 * 1024 - 1);
	line[64 * 1024 - 1] = 0;
	c.kernel_cmdline = line;
	long_ = vmm_backend_ch.check(&c);
	assert_non_null(strstr(long_, "48 KiB"));
	c.accel = "tcg";
	slow = vmm_backend_ch.check(&c);
	assert_non_null(strstr(slow, "KVM only"));
}

static void going_on_from_a_snapshot(void **state)
{
	CLEANUP(strv_freep) char **slow = NULL, **fast = NULL;
	CLEANUP_FREE char *volumes = vmm_check_snapshot(&vmm_backend_ch, 52, 1),
			  *none = vmm_check_snapshot(&vmm_backend_ch, 52, 0),
			  *fine = vmm_check_snapshot(&vmm_backend_ch, 53, 1);
	struct vmm_config c = config(53);

	c.restore = "/s/vmm";
	c.net_mac = NULL;
	assert_int_equal(vmm_backend_ch.calls(&c, &slow), 0);
	assert_int_equal(strv_length(slow), 3);
	assert_string_equal(slow[1], "PUT vm.restore {\"source_url\":\"file:///s/vmm\"}");
	assert_string_equal(slow[2], "PUT vm.resume");
	c.on_demand = true;
	assert_int_equal(vmm_backend_ch.calls(&c, &fast), 0);
	assert_non_null(strstr(fast[1], "\"memory_restore_mode\":\"OnDemand\""));
	assert_false(vmm_can_restore_on_demand(&vmm_backend_ch, 51));
	assert_true(vmm_can_restore_on_demand(&vmm_backend_ch, 52));
	assert_non_null(strstr(volumes, "53 is needed"));
	assert_null(none);
	assert_null(fine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_is_said),
		cmocka_unit_test(each_version_by_its_words),
		cmocka_unit_test(landlock_when_the_kernel_has_it),
		cmocka_unit_test(the_vsock_device),
		cmocka_unit_test(the_link),
		cmocka_unit_test(what_is_added),
		cmocka_unit_test(the_plan),
		cmocka_unit_test(what_cannot_be_is_said),
		cmocka_unit_test(going_on_from_a_snapshot),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
