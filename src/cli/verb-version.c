#include <stdio.h>

#include "config.h"
#include "control-error.h"
#include "fail.h"
#include "verb-list.h"

static int run_version(int argc, char **argv)
{
	printf("uvms %s\n", UVMS_VERSION);
	return 0;
}

static int run_help(int argc, char **argv)
{
	const struct verb *v;
	int words;

	if (argc == 0) {
		verbs_print_help();
		return 0;
	}
	v = verbs_find(argc, argv, &words);
	if (!v)
		return fail(UVMS_EXIT_USAGE, NULL, "uvms help lists them", "there is no verb %s",
			argv[0]);
	verbs_print_verb_help(v);
	return 0;
}

const struct verb verb_version = {
	.name = "version",
	.summary = "print the version",
	.run = run_version,
};

const struct verb verb_help = {
	.name = "help",
	.arguments = "[VERB]",
	.summary = "explain a verb",
	.max = 2,
	.run = run_help,
};
