#include "pidfd.h"

#include <errno.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int pidfd_open_pid(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);

	return fd < 0 ? -errno : fd;
}

int pidfd_signal(int pidfd, int signo)
{
	return syscall(SYS_pidfd_send_signal, pidfd, signo, NULL, 0) < 0 ? -errno : 0;
}

static int pidfd_wait(int pidfd, int what, siginfo_t *ret)
{
	siginfo_t info = { 0 };

	if (waitid(P_PIDFD, (id_t)pidfd, &info, what | WNOHANG) < 0)
		return -errno;
	if (info.si_pid == 0)
		return 0;
	*ret = info;
	return 1;
}

int pidfd_reap(int pidfd, siginfo_t *ret)
{
	return pidfd_wait(pidfd, WEXITED, ret);
}

int pidfd_pause(int pidfd, siginfo_t *ret)
{
	return pidfd_wait(pidfd, WSTOPPED | WCONTINUED, ret);
}
