#include <stddef.h>

#include "cli.h"
#include "verb-list.h"

/* What cannot be done to one VM is said, and the others are dealt with. */
static int change_each(int argc, char **argv, const char *method)
{
	int worst = 0;

	for (int i = 0; i < argc; i++) {
		int r = cli_check_name(argv[i]);

		if (r == 0)
			r = cli_call(argv[i], method, NULL, NULL, NULL);
		worst = worst ? worst : r;
	}
	return worst;
}

static int run_pause(int argc, char **argv)
{
	return change_each(argc, argv, "io.uvms.VM.Pause");
}

static int run_resume(int argc, char **argv)
{
	return change_each(argc, argv, "io.uvms.VM.Resume");
}

const struct verb verb_pause = {
	.name = "pause",
	.arguments = "NAME...",
	.summary = "let VMs stand still until they are resumed",
	.description = "They use no CPU and keep their memory. Sessions and connections wait.",
	.min = 1,
	.max = -1,
	.run = run_pause,
};

const struct verb verb_resume = {
	.name = "resume",
	.arguments = "NAME...",
	.summary = "let paused VMs go on, with the time of day of now",
	.min = 1,
	.max = -1,
	.run = run_resume,
};
