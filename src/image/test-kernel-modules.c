#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "kernel-modules.h"
#include "str.h"
#include "unit.h"

static int setup(void **state)
{
	char template[] = "/tmp/uvms-test-modules-XXXXXX";
	int *fd = malloc(sizeof *fd);

	*fd = open(mkdtemp(template), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = fd;
	return *fd < 0 || mkdirat(*fd, "kernel", 0755) < 0 || mkdirat(*fd, "kernel/d", 0755) < 0;
}

static int teardown(void **state)
{
	char link[64], path[256];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", *(int *)*state);
	n = readlink(link, path, sizeof path - 1);
	path[n] = 0;
	close(*(int *)*state);
	free(*state);
	return file_remove_tree_at(AT_FDCWD, path);
}

static void module(int dir, const char *file, const char *depends)
{
	CLEANUP_CLOSE int d = openat(dir, "kernel/d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char text[256] = "\177ELF";
	int n = 8;

	n += sprintf(text + n, "license=GPL") + 1;
	n += sprintf(text + n, "depends=%s", depends) + 1;
	n += sprintf(text + n, "vermagic=6.1.0-test SMP mod_unload") + 1;
	assert_int_equal(file_write_at(d, file, text, (size_t)n, 0644), 0);
}

static void order_is(const struct kernel_modules *m, const char *expected)
{
	char got[512] = "";

	for (size_t i = 0; i < m->n; i++)
		sprintf(got + strlen(got), "%s%s", i ? " " : "", m->list[i].file);
	assert_string_equal(got, expected);
}

static void orders_by_dependency(void **state)
{
	static const struct kernel_modules_want want[] = { { "virtio_blk", 1 }, { "virtio_rng", 0 },
		{ "ext4", 1 }, { "absent", 0 }, { "virtio", 1 }, { NULL, 0 } };
	static const char builtin[] = "kernel/fs/ext4/ext4.ko\nkernel/lib/crc-16.ko\n";
	int dir = *(int *)*state;
	CLEANUP(kernel_modules_finish) struct kernel_modules m = { 0 };
	CLEANUP_FREE char *reason = NULL;

	module(dir, "virtio_blk.ko", "virtio,virtio_ring,crc_16");
	module(dir, "virtio.ko", "virtio-ring");
	module(dir, "virtio-ring.ko", "");
	module(dir, "virtio-rng.ko", "virtio");
	module(dir, "unwanted.ko", "");
	assert_int_equal(file_write_at(dir, "modules.builtin", builtin, strlen(builtin), 0644), 0);
	assert_int_equal(kernel_modules_load(dir, want, &m, &reason), 0);
	order_is(&m, "virtio_ring.ko virtio.ko virtio_blk.ko virtio_rng.ko");
	assert_string_equal(m.release, "6.1.0-test");
}

/* Each group can be loaded without the others, but not without the early ones. */
static void groups_stand_for_themselves(void **state)
{
	static const struct kernel_modules_want want[] = { { "virtio", 1 },
		{ "net", 0, KERNEL_MODULES_NETWORK }, { "disk", 0, KERNEL_MODULES_VOLUMES },
		{ "fs", 0, KERNEL_MODULES_HOTPLUG }, { "pmem", 0, KERNEL_MODULES_HOTPLUG },
		{ NULL } };
	int dir = *(int *)*state;
	CLEANUP(kernel_modules_finish) struct kernel_modules m = { 0 };
	CLEANUP_FREE char *reason = NULL;

	module(dir, "virtio.ko", "");
	module(dir, "crc.ko", "");
	module(dir, "net.ko", "virtio,crc");
	module(dir, "disk.ko", "crc,virtio");
	module(dir, "fs.ko", "crc");
	assert_int_equal(kernel_modules_load(dir, want, &m, &reason), 0);
	/* a kernel may have only some of a group */
	order_is(&m, "virtio.ko crc.ko net.ko crc.ko disk.ko crc.ko fs.ko");
	assert_int_equal(m.list[0].group, KERNEL_MODULES_EARLY);
	assert_int_equal(m.list[1].group, KERNEL_MODULES_NETWORK);
	assert_int_equal(m.list[3].group, KERNEL_MODULES_VOLUMES);
	assert_int_equal(m.list[6].group, KERNEL_MODULES_HOTPLUG);
}

static void names_what_is_missing(void **state)
{
	static const struct kernel_modules_want want[] = { { "a", 1 }, { "b", 1 }, { "c", 1 },
		{ NULL, 0 } };
	int dir = *(int *)*state;
	struct kernel_modules m;
	CLEANUP_FREE char *reason = NULL;

	module(dir, "a.ko", "lost");
	assert_int_equal(kernel_modules_load(dir, want, &m, &reason), -ENOENT);
	assert_non_null(strstr(reason, "lost, b, c"));
}

static void refuses_circles_and_unknown_compression(void **state)
{
	static const struct kernel_modules_want a[] = { { "a", 1 }, { NULL, 0 } };
	static const struct kernel_modules_want c[] = { { "c", 0 }, { NULL, 0 } };
	int dir = *(int *)*state;
	struct kernel_modules m;
	CLEANUP_FREE char *reason = NULL, *other = NULL;

	module(dir, "a.ko", "b");
	module(dir, "b.ko", "a");
	assert_int_equal(kernel_modules_load(dir, a, &m, &reason), -ELOOP);
	assert_non_null(strstr(reason, "circle"));
	assert_int_equal(file_write_at(dir, "c.ko.gz", "\x1f\x8b\x08", 3, 0644), 0);
	assert_int_equal(renameat(dir, "c.ko.gz", dir, "kernel/c.ko.gz"), 0);
	assert_int_equal(kernel_modules_load(dir, c, &m, &other), -EOPNOTSUPP);
	assert_non_null(strstr(other, "c.ko.gz"));
}

/* cpio(1) is the judge of the format. */
static void archive_is_what_cpio_reads(void **state)
{
	static const struct kernel_modules_want want[] = { { "b", 1 }, { NULL, 0 } };
	static const char expected[] =
		"uvms\nuvms/modules.list\nuvms/modules.late\nuvms/modules.network\n"
		"uvms/modules.volumes\nuvms/modules.hotplug\nuvms/modules\nuvms/modules/a.ko\n"
		"uvms/modules/b.ko\n"
		"a.ko\nb.ko\n";
	int dir = *(int *)*state;
	CLEANUP(kernel_modules_finish) struct kernel_modules m = { 0 };
	CLEANUP_CLOSE int fd = fd_memfd("test");
	CLEANUP_FREE char *reason = NULL;
	char command[256], got[512] = "";
	FILE *p;

	if (system("cpio --version >/dev/null 2>&1") != 0)
		skip();
	module(dir, "a.ko", "");
	module(dir, "b.ko", "a");
	assert_int_equal(kernel_modules_load(dir, want, &m, &reason), 0);
	assert_int_equal(kernel_modules_archive(&m, fd), 0);
	assert_int_equal(lseek(fd, 0, SEEK_END) % 512, 0);
	snprintf(command, sizeof command,
		"f=/proc/%d/fd/%d; cpio --quiet -t <$f && cpio --quiet -i --to-stdout "
		"uvms/modules.list <$f",
		getpid(), fd);
	p = popen(command, "r");
	assert_true(fread(got, 1, sizeof got - 1, p) > 0);
	assert_int_equal(pclose(p), 0);
	assert_string_equal(got, expected);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(orders_by_dependency),
		CASE(groups_stand_for_themselves),
		CASE(names_what_is_missing),
		CASE(refuses_circles_and_unknown_compression),
		CASE(archive_is_what_cpio_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
