#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "pidfd.h"
#include "spawn.h"
#include "str.h"
#include "unit.h"

static siginfo_t finish(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	siginfo_t info = { 0 };

	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(pidfd_reap(pidfd, &info), 1);
	return info;
}

static void only_named_descriptors(void **state)
{
	CLEANUP_CLOSE int pidfd = -EBADF, reader = -EBADF;
	int out[2];
	char text[256] = "";

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	reader = out[0];
	assert_int_equal(dup2(0, 55), 55); /* not CLOEXEC: must not leak all the same */
	struct spawn s = { SPAWN_DEFAULTS, .path = "/bin/sh",
		.argv = (const char *[]){ "sh", "-c", "ls -C -w 200 /proc/$$/fd; exit 3", NULL },
		.fds = (int[]){ out[1], -EBADF, 0 }, .n_fds = 3, .stdout_fd = out[1] };
	assert_int_equal(spawn_process(&s, NULL, &pidfd), 0);
	close(out[1]);
	close(55);
	assert_true(fd_read_full(reader, text, sizeof text - 1) > 0);
	assert_string_equal(text, "0  1  2  3  5\n");
	assert_int_equal(finish(pidfd).si_status, 3);
}

static void missing_program(void **state)
{
	CLEANUP_CLOSE int pidfd = -EBADF;
	struct spawn s = { SPAWN_DEFAULTS, .path = "/nonexistent",
		.argv = (const char *[]){ "x", NULL } };

	assert_int_equal(spawn_process(&s, NULL, &pidfd), -ENOENT);
	assert_int_equal(pidfd, -EBADF);
}

/* As below /root: the other user may execute the file, but cannot get at it. */
static void program_in_a_closed_directory(void **state)
{
	char dir[] = "/tmp/test-spawn-XXXXXX";
	CLEANUP_CLOSE int pidfd = -EBADF;
	CLEANUP_FREE char *path = NULL;

	if (geteuid() != 0)
		skip();
	assert_non_null(mkdtemp(dir));
	path = str_printf("%s/true", dir);
	struct spawn copy = { SPAWN_DEFAULTS, .path = "cp",
		.argv = (const char *[]){ "cp", "/bin/true", path, NULL } };
	assert_int_equal(spawn_process(&copy, NULL, &pidfd), 0);
	assert_int_equal(spawn_wait(pidfd), 0);
	pidfd = fd_close(pidfd);
	struct spawn s = { SPAWN_DEFAULTS, .path = path, .argv = (const char *[]){ "true", NULL },
		.uid = 12345, .gid = 12345, .no_new_privs = true };
	assert_int_equal(spawn_process(&s, NULL, &pidfd), 0);
	assert_int_equal(spawn_wait(pidfd), 0);
	pidfd = fd_close(pidfd);
	/* but what it may not execute, it may not */
	assert_int_equal(chmod(path, 0700), 0);
	assert_int_equal(spawn_process(&s, NULL, &pidfd), -EACCES);
	assert_int_equal(file_remove_tree_at(AT_FDCWD, dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_named_descriptors),
		cmocka_unit_test(missing_program),
		cmocka_unit_test(program_in_a_closed_directory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
