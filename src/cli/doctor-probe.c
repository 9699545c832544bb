#include "doctor-probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "pidfd.h"
#include "spawn.h"

#define PROBE_LINE_MSEC 5000

int doctor_probe_in_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(-fn() & 0xff); /* errno values are below 256 */
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

/* What comes until a newline, the end or the time limit. Returns the length. */
static ssize_t probe_read(int fd, char *buf, size_t size)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	size_t len = 0;

	while (len < size && !memchr(buf, '\n', len)) {
		ssize_t n;
		int r = poll(&p, 1, PROBE_LINE_MSEC);

		if (r == 0)
			return -ETIMEDOUT;
		n = r < 0 ? -1 : read(fd, buf + len, size - len);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			break;
		len += n > 0 ? (size_t)n : 0;
	}
	return (ssize_t)len;
}

int doctor_probe_line(const char *program, const char *argument, char **ret)
{
	const char *const argv[] = { program, argument, NULL };
	CLEANUP_CLOSE int reader = -EBADF, writer = -EBADF, pidfd = -EBADF;
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program, .argv = argv };
	char text[512];
	ssize_t len;
	int pair[2], r;

	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	reader = pair[0];
	writer = pair[1];
	spawn.stdout_fd = writer;
	r = spawn_process(&spawn, NULL, &pidfd);
	writer = fd_close(writer);
	if (r < 0)
		return r;
	len = probe_read(reader, text, sizeof text - 1);
	(void)pidfd_signal(pidfd, SIGKILL);
	(void)spawn_wait(pidfd);
	if (len <= 0)
		return len < 0 ? (int)len : -EIO;
	text[len] = 0;
	text[strcspn(text, "\n")] = 0;
	*ret = strdup(text);
	return *ret ? 0 : -ENOMEM;
}
