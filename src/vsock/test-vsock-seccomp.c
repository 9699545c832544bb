/* Under the filter: what is needed works, a failed assert() is told, and the rest is the end. */
#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "unit.h"
#include "vsock-seccomp.h"

/* Runs FN under the filter in a child; returns its wait status, its stderr in TEXT. */
static int confined(void (*fn)(void), char *text, size_t size)
{
	int err[2], status;
	ssize_t n, have = 0;
	pid_t pid;

	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	pid = fork();
	if (pid == 0) {
		setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
		dup2(err[1], STDERR_FILENO);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		/* what cmocka has caught has to kill here */
		for (int signo = 1; signo < 32; signo++)
			signal(signo, SIG_DFL);
		if (vsock_seccomp_load() < 0)
			_exit(99);
		fn();
		_exit(0);
	}
	close(err[1]);
	while ((n = read(err[0], text + have, size - 1 - (size_t)have)) > 0)
		have += n;
	text[have] = '\0';
	close(err[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void fails(void)
{
	volatile int two = 2;

	/* cmocka has made assert() its own */
	if (two != 3)
		__assert_fail("two == 3", __FILE__, __LINE__, __func__);
}

static void failed_assert_is_told(void **state)
{
	char text[256];
	int status = confined(fails, text, sizeof text);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGILL);
	assert_non_null(strstr(text, "bug: "));
	assert_non_null(strstr(text, "fails(): two == 3\n"));
}

static void allowed(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	close(fd);
}

static void what_is_needed_works(void **state)
{
	char text[256];
	int status = confined(allowed, text, sizeof text);

	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static const long *call;

static void try(void)
{
	syscall(call[0], call[1], call[2], call[3], call[4]);
}

static void the_rest_is_the_end(void **state)
{
	static const struct {
		const char *name;
		long call[5];
	} cases[] = {
		{ "openat", { SYS_openat, AT_FDCWD, (long)"/", O_RDONLY } },
		{ "open", { SYS_open, (long)"/", O_RDONLY } },
		{ "execve", { SYS_execve, (long)"/bin/true" } },
		{ "clone", { SYS_clone } },
		{ "fork", { SYS_fork } },
		{ "kill", { SYS_kill } },
		{ "tgkill", { SYS_tgkill } },
		{ "ptrace", { SYS_ptrace } },
		{ "socket of IPv4", { SYS_socket, AF_INET, SOCK_STREAM } },
		{ "socket of netlink", { SYS_socket, AF_NETLINK, SOCK_RAW } },
		{ "bind", { SYS_bind, -1 } },
		{ "listen", { SYS_listen, -1 } },
		{ "mmap of code", { SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE } },
		{ "mprotect", { SYS_mprotect, 0, 4096, PROT_EXEC } },
		{ "fcntl to duplicate", { SYS_fcntl, 2, F_DUPFD, 3 } },
		{ "ioctl", { SYS_ioctl, 0, 0 } },
		{ "unlinkat", { SYS_unlinkat, AT_FDCWD, (long)"x" } },
		{ "renameat", { SYS_renameat, -1, (long)"x", -1, (long)"y" } },
		{ "mount", { SYS_mount } },
		{ "unshare", { SYS_unshare } },
		{ "setuid", { SYS_setuid } },
		{ "memfd_create", { SYS_memfd_create, (long)"x" } },
		{ "process_vm_readv", { SYS_process_vm_readv } },
		{ "io_uring_setup", { SYS_io_uring_setup } },
		{ "bpf", { SYS_bpf } },
		{ "no call at all", { 5000 } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[256];
		int status;

		call = cases[i].call;
		status = confined(try, text, sizeof text);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("%s: status %#x", cases[i].name, status);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failed_assert_is_told),
		cmocka_unit_test(what_is_needed_works),
		cmocka_unit_test(the_rest_is_the_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
