#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "runtime-dir.h"
#include "verb-list.h"
#include "vm-event.h"
#include "vm-lease.h"

static bool arg_force;

static const struct option_def options[] = {
	{ "force", 'f', NULL, OPTION_FLAG, &arg_force, "kill it first when it runs" },
	{ 0 },
};

/* Under the name's lock, so that no start comes between. */
static int rm(const char *name)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), name, false);
	struct runtime_dir rt;
	char holder[16];
	int r;

	if (vm < 0)
		return cli_no_vm(name);
	(void)runtime_dir_sweep(cli_dirs(), name);
	r = runtime_dir_lock(cli_dirs(), name, &rt, holder);
	if (r == -EBUSY)
		return fail(UVMS_EXIT_BUSY, NULL, "uvms stop it first, or uvms rm --force",
			"%s runs: its supervisor is process %s", name, holder);
	if (r == 0) {
		r = vm_lease_drop(cli_dirs(), name);
		runtime_dir_end(cli_dirs(), name, &rt);
	}
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be removed", name);
	(void)vm_event_append(cli_dirs(), &(struct vm_event){ .vm = name, .event = "removed" });
	return 0;
}

static int run(int argc, char **argv)
{
	int worst = 0;

	for (int i = 0; i < argc; i++) {
		int r = cli_check_name(argv[i]);

		if (r == 0 && arg_force)
			r = cli_stop(argv[i], 0, true, true);
		if (r == 0)
			r = rm(argv[i]);
		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_rm = {
	.name = "rm",
	.arguments = "[--force] NAME...",
	.summary = "forget stopped VMs",
	.options = options,
	.min = 1,
	.max = -1,
	.run = run,
};
