#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "file.h"
#include "sockun.h"
#include "str.h"
#include "unit.h"

static int dir_setup(void **state)
{
	char template[] = "/tmp/uvms-test-file-XXXXXX";
	int *fd = malloc(sizeof *fd);

	*fd = open(mkdtemp(template), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = fd;
	return *fd < 0;
}

static int dir_teardown(void **state)
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

static void round_trip(void **state)
{
	int dir = *(int *)*state;
	CLEANUP_FREE char *data = NULL;
	size_t len;

	assert_int_equal(file_write_at(dir, "a", "hello", 5, 0600), 0);
	assert_int_equal(file_read_at(dir, "a", 5, &data, &len), 0);
	assert_int_equal(len, 5);
	assert_string_equal(data, "hello");
	assert_int_equal(file_read_at(dir, "a", 4, &data, &len), -EFBIG);
	assert_int_equal(file_read_at(dir, "none", 4, &data, &len), -ENOENT);
	assert_int_equal(symlinkat("a", dir, "link"), 0);
	assert_int_equal(file_read_at(dir, "link", 5, &data, &len), -ELOOP);
}

static void removes_trees_but_follows_no_link(void **state)
{
	int dir = *(int *)*state;
	CLEANUP_CLOSE int sub = file_mkdir_at(dir, "sub", 0700);
	struct stat st;

	assert_int_equal(file_write_at(dir, "kept", "x", 1, 0600), 0);
	assert_int_equal(symlinkat("../kept", sub, "link"), 0);
	assert_int_equal(mkdirat(sub, "deeper", 0700), 0);
	assert_int_equal(file_remove_tree_at(dir, "sub"), 0);
	assert_int_equal(fstatat(dir, "sub", &st, 0), -1);
	assert_int_equal(fstatat(dir, "kept", &st, 0), 0);
	assert_int_equal(file_remove_tree_at(dir, "sub"), 0);
}

/* Deeper than there are descriptors, and than a path can be. */
static void removes_deep_trees(void **state)
{
	int dir = *(int *)*state, fd = file_mkdir_at(dir, "deep", 0700);
	struct rlimit before, few;
	struct stat st;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = (struct rlimit){ 64, before.rlim_max };
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	for (int i = 0; i < 3000; i++) {
		int next = file_mkdir_at(fd, "d", 0700);

		assert_true(next >= 0);
		assert_int_equal(file_write_at(fd, "f", "x", 1, 0600), 0);
		close(fd);
		fd = next;
	}
	close(fd);
	assert_int_equal(file_remove_tree_at(dir, "deep"), 0);
	assert_int_equal(fstatat(dir, "deep", &st, 0), -1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
}

static void long_socket_paths(void **state)
{
	int dir = *(int *)*state;
	CLEANUP_CLOSE int sub = -EBADF, listener = -EBADF, peer = -EBADF;
	char name[200];

	memset(name, 'n', sizeof name);
	name[199] = 0;
	sub = file_mkdir_at(dir, name, 0700);
	assert_true(sub >= 0);
	listener = sockun_listen_at(sub, "control", 0600, 4);
	assert_true(listener >= 0);
	peer = sockun_connect_at(sub, "control");
	assert_true(peer >= 0);
}

static void list(void **state)
{
	CLEANUP(strv_freep) char **names = NULL;
	int dir = file_mkdir_at(AT_FDCWD, "test-file.list", 0700);

	assert_true(dir >= 0);
	assert_int_equal(file_list_at(dir, ".", 10, &names), 0);
	assert_null(names);
	assert_int_equal(file_write_at(dir, "b", "", 0, 0600), 0);
	assert_int_equal(file_write_at(dir, ".a", "", 0, 0600), 0);
	assert_int_equal(file_list_at(AT_FDCWD, "test-file.list", 2, &names), 0);
	assert_string_equal(names[0], ".a");
	assert_string_equal(names[1], "b");
	assert_null(names[2]);
	assert_int_equal(file_list_at(dir, ".", 1, &names), -E2BIG);
	assert_int_equal(file_list_at(dir, "b", 1, &names), -ENOTDIR);
	close(dir);
	assert_int_equal(file_remove_tree_at(AT_FDCWD, "test-file.list"), 0);
}

/* Data with holes before, between and behind, over the border of the buffer that is used between file systems. */
static void a_copy_has_the_holes(void **state)
{
	static const off_t places[] = { 1 << 20, 3 << 20, (3 << 20) + 20000 };
	CLEANUP_CLOSE int from = open("test-file.from", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CLEANUP_CLOSE int to = open("test-file.to", O_RDWR | O_CREAT | O_TRUNC, 0600);
	CLEANUP_CLOSE int null = open("/dev/null", O_RDONLY);
	char text[6] = "";
	struct stat st;

	assert_true(from >= 0 && to >= 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		assert_int_equal(pwrite(from, "data!", 5, places[i]), 5);
	assert_int_equal(ftruncate(from, 8 << 20), 0);
	assert_int_equal(file_clone_fd(from, to), 0);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		assert_int_equal(pread(to, text, 5, places[i]), 5);
		assert_string_equal(text, "data!");
	}
	assert_int_equal(fstat(to, &st), 0);
	assert_int_equal(st.st_size, 8 << 20);
	assert_true(st.st_blocks * 512 < 4 << 20);
	assert_int_equal(file_clone_fd(null, to), -EINVAL);
	unlink("test-file.from");
	unlink("test-file.to");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(removes_deep_trees),
		cmocka_unit_test(removes_trees_but_follows_no_link),
		cmocka_unit_test(long_socket_paths),
		cmocka_unit_test(list),
		cmocka_unit_test(a_copy_has_the_holes),
	};

	return cmocka_run_group_tests(tests, dir_setup, dir_teardown);
}
