#include <errno.h>
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "verb-list.h"

int cli_start(const char *name)
{
	CLEANUP_CLOSE int client = -EBADF;
	int r = cli_check_name(name);

	if (r == 0) {
		CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), name, false);

		if (vm < 0)
			return cli_no_vm(name);
		r = cli_launch(name, false, &client);
	}
	return r ? r : cli_wait_ready(name, client);
}

static int run_start(int argc, char **argv)
{
	int worst = 0;

	for (int i = 0; i < argc; i++) {
		int r = cli_start(argv[i]);

		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_start = {
	.name = "start",
	.arguments = "NAME...",
	.summary = "start known VMs and wait until they are ready",
	.min = 1,
	.max = -1,
	.run = run_start,
};
