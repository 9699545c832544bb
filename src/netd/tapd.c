/* uvms-tapd NAME: see uvms-tapd(8). Descriptor 3 is the link, 4 the stream to passt. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "fd.h"
#include "log.h"
#include "sandbox.h"
#include "tap-pump.h"
#include "tap-seccomp.h"

#define TAPD_LINK   3
#define TAPD_STREAM 4

static struct tap_pump pump;

static int tapd_run(const char *name)
{
	int r;

	signal(SIGPIPE, SIG_IGN);
	r = fd_set_nonblock(TAPD_LINK, 1);
	if (r >= 0)
		r = fd_set_nonblock(TAPD_STREAM, 1);
	if (r >= 0)
		r = sandbox_drop_privileges();
	if (r >= 0)
		r = tap_pump_init(&pump, TAPD_LINK, TAPD_STREAM);
	if (r < 0)
		return r;
	/* nothing that anybody sent has been looked at yet */
	if (UVMS_SANITIZED) /* a sanitizer makes calls of its own */
		log_warning("%s: no system call filter", name);
	else
		r = tap_seccomp_load();
	return r < 0 ? r : tap_pump_run(&pump);
}

int main(int argc, char **argv)
{
	int r;

	log_open("uvms-tapd");
	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--version") == 0)) {
		puts(argv[1][2] == 'h' ? "usage: uvms-tapd NAME  (started by uvms-supervisor; "
					 "uvms-tapd(8))"
				       : "uvms-tapd " UVMS_VERSION);
		return 0;
	}
	if (argc != 2) {
		log_error("it takes one argument, the VM's name");
		return 2;
	}
	r = tapd_run(argv[1]);
	if (r < 0)
		log_error("%s: %s", argv[1],
			r == -EBADMSG ? "passt sent a length that no frame can have"
				      : strerror(-r));
	return r < 0;
}
