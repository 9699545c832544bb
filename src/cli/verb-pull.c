#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli-store.h"
#include "control-error.h"
#include "fail.h"
#include "image-pull.h"
#include "oci.h"
#include "str.h"
#include "verb-list.h"

static const char *arg_name;
static bool arg_quiet, arg_insecure;

static const struct option_def options[] = {
	{ "name", 0, "NAME", OPTION_STRING, &arg_name, "the image's name in the store" },
	{ "insecure", 0, NULL, OPTION_FLAG, &arg_insecure,
		"plain HTTP and unknown certificates are good enough" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "print the digest alone" },
	{ 0 },
};

static int choose_name(const char *ref, char **ret)
{
	CLEANUP_FREE char *name = NULL;
	const char *reason;

	if (image_pull_check(ref, &name, &reason) < 0)
		return fail(UVMS_EXIT_USAGE, reason, "uvms help image pull",
			"\"%s\" is no image reference", ref);
	if (arg_name && str_set(&name, arg_name) < 0)
		return UVMS_EXIT_FAILED;
	if (!name)
		return fail(UVMS_EXIT_USAGE, NULL, "say --name NAME", "no name follows from \"%s\"",
			ref);
	reason = oci_name_problem(name);
	if (reason)
		return fail(
			UVMS_EXIT_USAGE, reason, NULL, "\"%s\" cannot be an image's name", name);
	*ret = TAKE_PTR(name);
	return 0;
}

static int run(int argc, char **argv)
{
	CLEANUP(store_closep) struct store *s = NULL;
	CLEANUP_FREE char *name = NULL, *reason = NULL, *doing = NULL, *size = NULL;
	struct image_built built;
	int r = choose_name(argv[0], &name);

	if (r)
		return r;
	struct image_pull p = { .ref = argv[0],
		.name = name,
		.insecure = arg_insecure,
		.say = arg_quiet ? NULL : cli_store_say,
		.progress_fd = arg_quiet ? -EBADF : STDERR_FILENO };
	s = cli_store();
	r = image_pull(s, &p, &built, &reason);
	if (r < 0) {
		doing = str_printf("image %s cannot be pulled", argv[0]);
		return cli_store_fail(r, reason, NULL, str_or(doing, argv[0]));
	}
	size = cli_store_size(built.size_bytes);
	if (!arg_quiet)
		fail_say("image %s is there: %s", name, str_or(size, ""));
	puts(built.digest);
	return 0;
}

const struct verb verb_image_pull = {
	.name = "image pull",
	.arguments = "REF [--name NAME] [--insecure] [-q]",
	.summary = "fetch an image from a registry",
	.description = "All layers of the image become one. What it says about its command, "
		       "environment, working\n"
		       "directory and user is kept, and obeyed by `uvms run`.",
	.options = options,
	.min = 1,
	.max = 1,
	.run = run,
};
