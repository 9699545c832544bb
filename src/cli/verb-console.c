#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "terminal.h"
#include "verb-list.h"

#define CONSOLE_ESCAPE 0x1d /* ^] */

/* Copies what is there. 1: go on, 0: the end. */
static int pass(int from, int to, bool escape)
{
	char bytes[4096];
	ssize_t n = read(from, bytes, sizeof bytes);
	char *end;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n <= 0)
		return 0;
	end = escape ? memchr(bytes, CONSOLE_ESCAPE, (size_t)n) : NULL;
	if (fd_write_all(to, bytes, end ? (size_t)(end - bytes) : (size_t)n) < 0)
		return 0;
	return !end;
}

int cli_console(const char *name)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int input = STDIN_FILENO, r;

	r = cli_call(name, "io.uvms.VM.Console", NULL, NULL, &fd);
	if (r != 0)
		return r;
	(void)terminal_raw();
	for (;;) {
		struct pollfd p[] = { { .fd = fd, .events = POLLIN },
			{ .fd = input, .events = POLLIN } };

		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[0].revents && !pass(fd, STDOUT_FILENO, false))
			break;
		if (p[1].revents && !pass(input, fd, true)) {
			if (isatty(STDIN_FILENO))
				break;
			input = -1; /* piped input has ended: the console goes on */
		}
	}
	terminal_restore();
	return 0;
}

static int run(int argc, char **argv)
{
	if (isatty(STDIN_FILENO))
		fail_say("the console of %s; ^] leaves", argv[0]);
	return cli_console(argv[0]);
}

const struct verb verb_console = {
	.name = "console",
	.arguments = "NAME",
	.summary = "attach to a VM's serial console; ^] leaves",
	.min = 1,
	.max = 1,
	.run = run,
};
