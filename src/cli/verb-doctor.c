#include <stdio.h>

#include "verb-list.h"

static int run(int argc, char **argv)
{
	puts("not supported yet");
	return 6;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.summary = "check what this host can do, with the remedy for what it cannot",
	.run = run,
};
