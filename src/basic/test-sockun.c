/* UNIX sockets by directory: without a name, and in a directory of somebody else's. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "sockun.h"
#include "unit.h"

static int a_directory(void)
{
	char path[] = "/tmp/test-sockun-XXXXXX";
	int fd;

	assert_non_null(mkdtemp(path));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void remove_directory(int fd)
{
	char link[32], path[64];
	ssize_t n;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof path - 1);
	assert_true(n > 0);
	path[n] = 0;
	assert_int_equal(rmdir(path), 0); /* nothing is left in it */
	close(fd);
}

static void who_has_the_descriptor_connects(void **state)
{
	CLEANUP_CLOSE int path = -EBADF, a = -EBADF, b = -EBADF, listener = -EBADF;
	int dir = a_directory();

	listener = sockun_listen_unnamed(dir, "api", 0600, 4, &path);
	assert_true(listener >= 0 && path >= 0);
	assert_true(fcntl(path, F_GETFL) & O_PATH);
	assert_int_equal(sockun_connect_at(dir, "api"), -ENOENT);
	a = sockun_connect_fd(path);
	assert_true(a >= 0);
	b = accept(listener, NULL, NULL);
	assert_int_equal(write(a, "x", 1), 1);
	assert_int_equal(close(TAKE_FD(listener)), 0);
	listener = sockun_connect_fd(path);
	assert_int_equal(listener, -ECONNREFUSED);
	remove_directory(dir);
}

static void the_name_must_be_free(void **state)
{
	CLEANUP_CLOSE int file = -EBADF;
	int dir = a_directory(), path = -EBADF;

	file = openat(dir, "api", O_CREAT | O_WRONLY, 0600);
	assert_int_equal(sockun_listen_unnamed(dir, "api", 0600, 4, &path), -EADDRINUSE);
	assert_int_equal(path, -EBADF);
	assert_int_equal(unlinkat(dir, "api", 0), 0);
	remove_directory(dir);
}

static void only_a_socket_of_that_owner(void **state)
{
	CLEANUP_CLOSE int listener = -EBADF, file = -EBADF, good = -EBADF;
	int dir = a_directory();

	listener = sockun_listen_at(dir, "v", 0600, 4);
	good = sockun_connect_owned(dir, "v", geteuid());
	assert_true(good >= 0);
	assert_int_equal(sockun_connect_owned(dir, "v", geteuid() + 1), -EPERM);
	assert_int_equal(symlinkat("v", dir, "link"), 0);
	assert_int_equal(sockun_connect_owned(dir, "link", geteuid()), -EPERM);
	file = openat(dir, "file", O_CREAT | O_WRONLY, 0600);
	assert_int_equal(sockun_connect_owned(dir, "file", geteuid()), -EPERM);
	assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
	assert_int_equal(sockun_connect_owned(dir, "fifo", geteuid()), -EPERM);
	assert_int_equal(sockun_connect_owned(dir, "none", geteuid()), -ENOENT);
	for (const char *const *p = (const char *const[]){ "v", "link", "file", "fifo", NULL }; *p;
		p++)
		assert_int_equal(unlinkat(dir, *p, 0), 0);
	remove_directory(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_has_the_descriptor_connects),
		cmocka_unit_test(the_name_must_be_free),
		cmocka_unit_test(only_a_socket_of_that_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
