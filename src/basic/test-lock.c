#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "lock.h"
#include "unit.h"

struct place {
	char path[32];
	int dir;
};

static int place_make(void **state)
{
	struct place *p = calloc(1, sizeof *p);

	strcpy(p->path, "/tmp/uvms-test-lock-XXXXXX");
	assert_non_null(mkdtemp(p->path));
	p->dir = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	*state = p;
	return p->dir < 0;
}

static int place_remove(void **state)
{
	struct place *p = *state;

	unlinkat(p->dir, "f", 0);
	unlinkat(p->dir, "d", AT_REMOVEDIR);
	close(p->dir);
	rmdir(p->path);
	free(p);
	return 0;
}

static int file_in(struct place *p)
{
	int fd = openat(p->dir, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

/* A process that has FD, too, until it is killed. */
static pid_t heir(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void one_holder(void **state)
{
	CLEANUP_CLOSE int mine = file_in(*state), other = file_in(*state);

	assert_int_equal(lock_is_held(other), 0);
	assert_int_equal(lock_take(mine), 0);
	assert_int_equal(lock_take(mine), 0);
	assert_int_equal(lock_is_held(mine), 0);
	assert_int_equal(lock_is_held(other), 1);
	assert_int_equal(lock_take(other), -EBUSY);
	mine = fd_close(mine);
	assert_int_equal(lock_is_held(other), 0);
	assert_int_equal(lock_wait(other), 0);
}

static void heirs_hold_it(void **state)
{
	CLEANUP_CLOSE int mine = file_in(*state), other = file_in(*state);
	pid_t pid;

	assert_int_equal(lock_take(mine), 0);
	pid = heir();
	mine = fd_close(mine);
	assert_int_equal(lock_take(other), -EBUSY);
	end(pid);
	assert_int_equal(lock_take(other), 0);
}

/* The holder goes while we wait. */
static void waits(void **state)
{
	CLEANUP_CLOSE int mine = file_in(*state), other = file_in(*state);
	int status;
	pid_t pid;

	assert_int_equal(lock_take(mine), 0);
	pid = fork();
	if (pid == 0) {
		close(mine);
		_exit(lock_wait(other) == 0 && lock_named_wait(other) == 0 ? 7 : 1);
	}
	usleep(50000);
	assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
	mine = fd_close(mine);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 7);
}

static void directories(void **state)
{
	struct place *p = *state;
	CLEANUP_CLOSE int mine = -EBADF, other = -EBADF;

	assert_int_equal(mkdirat(p->dir, "d", 0700), 0);
	mine = openat(p->dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	other = openat(p->dir, "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_int_equal(lock_take(mine), -EBADF); /* not open for writing */
	assert_int_equal(lock_named_take(mine), 0);
	assert_int_equal(lock_named_take(other), -EBUSY);
	mine = fd_close(mine);
	assert_int_equal(unlinkat(p->dir, "d", AT_REMOVEDIR), 0);
	assert_int_equal(lock_named_take(other), -EAGAIN);
	assert_int_equal(lock_named_wait(other), -EAGAIN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_holder, place_make, place_remove),
		cmocka_unit_test_setup_teardown(heirs_hold_it, place_make, place_remove),
		cmocka_unit_test_setup_teardown(waits, place_make, place_remove),
		cmocka_unit_test_setup_teardown(directories, place_make, place_remove),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
