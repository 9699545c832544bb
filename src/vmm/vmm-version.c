#include "vmm-version.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "pidfd.h"
#include "spawn.h"
#include "str.h"
#include "vm-dirs.h"

#define VERSION_FILE       ".vmm-version"
#define VERSION_ANSWER_MS  5000
#define VERSION_OUTPUT_MAX 65536

static char *version_identity(const char *program)
{
	struct stat st;

	if (stat(program, &st) < 0)
		return NULL;
	return str_printf("%llx:%llu:%lld:%lld.%09ld", (unsigned long long)st.st_dev,
		(unsigned long long)st.st_ino, (long long)st.st_size, (long long)st.st_ctim.tv_sec,
		st.st_ctim.tv_nsec);
}

/* "IDENTITY TEXT": a note of our own, but read as carefully as any. */
static int version_load(int dir, const char *identity, char ret[static VMM_VERSION_TEXT_MAX])
{
	CLEANUP_FREE char *text = NULL;
	size_t n = strlen(identity);
	int r = file_read_at(dir, VERSION_FILE, 512, &text, NULL);

	if (r < 0)
		return r;
	if (strncmp(text, identity, n) != 0 || text[n] != ' ')
		return -ESTALE;
	str_escape(ret, VMM_VERSION_TEXT_MAX, text + n + 1, strcspn(text + n + 1, "\n"), NULL);
	return 0;
}

static void version_save(int dir, const char *identity, const char *version)
{
	CLEANUP_FREE char *text = str_printf("%s %s\n", identity, version);

	if (text)
		(void)file_write_at(dir, VERSION_FILE, text, strlen(text), 0644);
}

/* The end of it within the time, else it is killed. */
static int version_wait(int pidfd)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };

	if (poll(&p, 1, VERSION_ANSWER_MS) > 0)
		return spawn_wait(pidfd) == 0 ? 0 : -EIO;
	(void)pidfd_signal(pidfd, SIGKILL);
	(void)spawn_wait(pidfd);
	return -EIO;
}

static int version_run(const char *program, char ret[static VMM_VERSION_TEXT_MAX])
{
	CLEANUP_CLOSE int out = fd_memfd("uvms-version"), pidfd = -EBADF;
	CLEANUP_FREE char *text = NULL;
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program, .stdout_fd = out,
		.no_new_privs = true, .death_signal = SIGKILL,
		.argv = (const char *[]){ program, "--version", NULL } };
	int r;

	if (out < 0)
		return out;
	r = spawn_process(&spawn, NULL, &pidfd);
	if (r == 0)
		r = version_wait(pidfd);
	if (r < 0)
		return r;
	if (lseek(out, 0, SEEK_SET) < 0 || file_read_fd(out, VERSION_OUTPUT_MAX, &text, NULL) < 0 ||
		!*text)
		return -EIO;
	str_escape(ret, VMM_VERSION_TEXT_MAX, text, strcspn(text, "\n"), NULL);
	return 0;
}

int vmm_version_ask(
	const struct vm_dirs *dirs, const char *program, char ret[static VMM_VERSION_TEXT_MAX])
{
	CLEANUP_CLOSE int dir = open(dirs->runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FREE char *identity = version_identity(program);
	int r;

	if (identity && dir >= 0 && version_load(dir, identity, ret) == 0)
		return 0;
	r = version_run(program, ret);
	if (r == 0 && identity && dir >= 0)
		version_save(dir, identity, ret);
	return r;
}
