#include "unit.h"

#include "boot-desc.h"
#include "cleanup.h"

#include <errno.h>

static const char *const args[] = { "nginx", "-g", "daemon off;", NULL };

static struct boot_desc sample(void)
{
	return (struct boot_desc){
		.mode = BOOT_DESC_COMMAND,
		.flags = BOOT_DESC_READY_PROBE | BOOT_DESC_NETWORK,
		.network = { .mac = { 2 }, .address = { 10, 0, 2, 15 }, .prefix = 24, .mtu = 1500 },
		.secret = { 1 },
		.realtime_ns = 1700000000000000000,
		.root_size_bytes = 1 << 30,
		.hostname = wire_str_from("web"),
		.user = wire_str_from("www-data:www-data"),
		.argv = wire_strv_from(args),
		.n_layers = 2,
		.layers = { { wire_str_from("l0"), wire_str_from("erofs") },
			{ wire_str_from("sha256-0123456789abc"), wire_str_from("erofs") } },
		.n_mounts = 1,
		.mounts = { { wire_str_from("v0"), wire_str_from("ext4"),
			wire_str_from("/var/lib/x"), BOOT_DESC_MOUNT_READ_ONLY } },
	};
}

static uint8_t buf[BOOT_DESC_MAX], again[BOOT_DESC_MAX];

static void test_round_trip(void **state)
{
	struct boot_desc d = sample(), got;
	ssize_t n = boot_desc_encode(&d, buf, sizeof buf);

	assert_true(n > 0);
	assert_int_equal(boot_desc_decode(buf, (size_t)n, &got), 0);
	assert_int_equal(got.n_layers, 2);
	assert_memory_equal(got.layers[1].serial.s, "sha256-0123456789abc", 20);
	assert_int_equal(got.argv.n, 3);
	assert_int_equal(boot_desc_encode(&got, again, sizeof again), n);
	assert_memory_equal(buf, again, (size_t)n);
}

static void test_every_wrong_length(void **state)
{
	struct boot_desc d = sample(), got;
	ssize_t n = boot_desc_encode(&d, buf, sizeof buf);

	for (ssize_t len = 0; len < n; len++) {
		assert_int_equal(boot_desc_decode(buf, (size_t)len, &got), -EBADMSG);
		assert_int_equal(boot_desc_encode(&d, again, (size_t)len), -ENOBUFS);
	}
	assert_int_equal(boot_desc_decode(buf, (size_t)n + 1, &got), -EBADMSG);
	assert_int_equal(boot_desc_decode(buf, sizeof buf + 1, &got), -EBADMSG);
}

static void test_refused(void **state)
{
	struct boot_desc d = sample();

	d.n_layers = 0;
	assert_int_equal(boot_desc_encode(&d, buf, sizeof buf), -EINVAL);
	d = sample();
	d.layers[0].serial = wire_str_from("../x");
	assert_int_equal(boot_desc_encode(&d, buf, sizeof buf), -EINVAL);
	d.layers[0].serial = wire_str_from("0123456789012345678901");
	assert_int_equal(boot_desc_encode(&d, buf, sizeof buf), -EINVAL);
	d = sample();
	d.mode = 3;
	assert_int_equal(boot_desc_encode(&d, buf, sizeof buf), -EINVAL);
	static const char *const targets[] = { "", "/", "x", "/..", "/a/../b", "/a/.." };
	for (size_t i = 0; i < ARRAY_SIZE(targets); i++) {
		d = sample();
		d.mounts[0].target = wire_str_from(targets[i]);
		assert_int_equal(boot_desc_encode(&d, buf, sizeof buf), -EINVAL);
	}
	d.mounts[0].target = wire_str_from("/a/..b");
	assert_true(boot_desc_encode(&d, buf, sizeof buf) > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_wrong_length),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
