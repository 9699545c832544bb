#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

static int answers(void *arg, void *answer)
{
	memcpy(answer, arg, 6);
	return 0;
}

static int fails(void *arg, void *answer)
{
	memset(answer, 'x', SPAWN_APART_MAX);
	return -ENOPKG;
}

static int raises(void *arg, void *answer)
{
	raise(*(int *)arg);
	return 0;
}

static int exits(void *arg, void *answer)
{
	_exit(0);
}

static void work_apart(void **state)
{
	char word[6] = "hello", out[6] = "";

	assert_int_equal(spawn_apart(answers, word, out, sizeof out), 0);
	assert_string_equal(out, "hello");
	assert_int_equal(spawn_apart(fails, NULL, out, sizeof out), -ENOPKG);
	assert_string_equal(out, "hello");
	assert_int_equal(spawn_apart(raises, &(int){ SIGKILL }, out, sizeof out), -ECHILD);
	assert_int_equal(spawn_apart(raises, &(int){ SIGSTOP }, out, sizeof out), -ECHILD);
	assert_int_equal(spawn_apart(exits, NULL, out, sizeof out), -ECHILD);
	assert_string_equal(out, "hello");
	/* by whoever started us */
	signal(SIGCHLD, SIG_IGN);
	assert_int_equal(spawn_apart(fails, NULL, out, sizeof out), -ENOPKG);
	assert_int_equal(spawn_apart(exits, NULL, out, sizeof out), -ECHILD);
	signal(SIGCHLD, SIG_DFL);
	/* every one was reaped */
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static int says_and_stays(void *arg, void *answer)
{
	pid_t pid = getpid();

	fd_write_all(*(int *)arg, &pid, sizeof pid);
	for (;;)
		pause();
	return 0;
}

/* The pipe's end comes only when both have ended. */
static void work_apart_dies_with_its_parent(void **state)
{
	CLEANUP_CLOSE int reader = -EBADF;
	int out[2], status;
	pid_t parent, child;
	char end;

	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	reader = out[0];
	parent = fork();
	if (parent == 0) {
		spawn_apart(says_and_stays, &out[1], NULL, 0);
		_exit(1);
	}
	close(out[1]);
	assert_int_equal(fd_read_full(reader, &child, sizeof child), sizeof child);
	assert_int_not_equal(child, parent);
	kill(parent, SIGKILL);
	assert_int_equal(waitpid(parent, &status, 0), parent);
	struct pollfd p = { .fd = reader, .events = POLLIN };
	assert_int_equal(poll(&p, 1, 5000), 1);
	assert_int_equal(read(reader, &end, 1), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(only_named_descriptors),
		cmocka_unit_test(missing_program),
		cmocka_unit_test(program_in_a_closed_directory),
		cmocka_unit_test(work_apart),
		cmocka_unit_test(work_apart_dies_with_its_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
