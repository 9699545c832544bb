#include "guest-place.h"

#include "agent-wire.h"
#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#define UNIT_DIR "/run/systemd/system"
#define UNIT     "uvms-agent.service"

/*
 * Up before everything else of the image, and until the last kill of a shutdown: no dependency of its own,
 * no conflict with shutdown.target. It survives `systemctl isolate`.
 */
static const char unit_format[] = "[Unit]\n"
				  "Description=Guest agent of uvms\n"
				  "Documentation=man:uvms-guest(8)\n"
				  "DefaultDependencies=no\n"
				  "IgnoreOnIsolate=yes\n"
				  "Before=sysinit.target\n"
				  "StartLimitIntervalSec=0\n"
				  "\n"
				  "[Service]\n"
				  "Type=simple\n"
				  "ExecStart=" GUEST_PLACE_BINARY " agent%s\n"
				  "Restart=on-failure\n"
				  "RestartSec=200ms\n"
				  "KillMode=mixed\n"
				  "TasksMax=infinity\n"
				  "LimitNOFILE=8192:524288\n";

static int copy_fd(int from, int to)
{
	struct stat st;
	off_t offset = 0;

	if (fstat(from, &st) < 0)
		return -errno;
	while (offset < st.st_size) {
		ssize_t n = sendfile(to, from, &offset, (size_t)(st.st_size - offset));

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
	}
	return 0;
}

int guest_place_agent(int self_fd, const uint8_t *secret)
{
	CLEANUP_CLOSE int dir = file_mkdir_path("/run/uvms", 0755);
	CLEANUP_CLOSE int to = -EBADF;
	int r;

	if (dir < 0)
		return dir;
	to = openat(dir, "uvms-guest", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (to < 0)
		return -errno;
	r = copy_fd(self_fd, to);
	return r < 0 ? r : file_write_at(dir, "secret", secret, AGENT_WIRE_SECRET, 0400);
}

int guest_place_unit(bool ready_probe)
{
	CLEANUP_CLOSE int dir = file_mkdir_path(UNIT_DIR, 0755);
	CLEANUP_CLOSE int wants = file_mkdir_path(UNIT_DIR "/sysinit.target.wants", 0755);
	CLEANUP_FREE char *text = NULL;
	int r;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	text = str_printf(unit_format, ready_probe ? " --ready-probe" : "");
#pragma GCC diagnostic pop
	if (!text)
		return -ENOMEM;
	if (dir < 0 || wants < 0)
		return dir < 0 ? dir : wants;
	r = file_write_at(dir, UNIT, text, strlen(text), 0644);
	if (r < 0)
		return r;
	return symlinkat("../" UNIT, wants, UNIT) < 0 && errno != EEXIST ? -errno : 0;
}

/* '@' as the first character: "I am part of the storage stack, do not kill me" to shutdown tools. */
int guest_place_start(bool ready_probe)
{
	char name[] = "@uvms-guest", verb[] = "agent", probe[] = "--ready-probe";
	char *argv[] = { name, verb, ready_probe ? probe : NULL, NULL };
	pid_t pid = fork();

	if (pid != 0)
		return pid < 0 ? -errno : 0;
	setsid();
	execv(GUEST_PLACE_BINARY, argv);
	_exit(127);
}
