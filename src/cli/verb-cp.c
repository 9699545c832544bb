#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-error.h"
#include "copy.h"
#include "fail.h"
#include "fd.h"
#include "str.h"
#include "tree-pack.h"
#include "verb-list.h"

#define TAR_END_BYTES 1024

static bool arg_archive, arg_no_owner, arg_follow, arg_one_fs, arg_quiet;

static const struct option_def options[] = {
	{ "archive", 'a', NULL, OPTION_FLAG, &arg_archive,
		"keep owners, setuid and setgid bits (root does into a guest anyway)" },
	{ "no-owner", 0, NULL, OPTION_FLAG, &arg_no_owner, "do not keep them" },
	{ "follow", 'L', NULL, OPTION_FLAG, &arg_follow,
		"copy what SRC points to if it is a symbolic link" },
	{ "one-file-system", 'x', NULL, OPTION_FLAG, &arg_one_fs,
		"do not enter other file systems below SRC" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "show no progress" },
	{ 0 },
};

/* "NAME:PATH": the path, and the colon becomes the name's end. NULL: a path of the host, or "-". */
static char *guest_path(char *argument)
{
	char *colon = strchr(argument, ':'), *slash = strchr(argument, '/');

	if (!colon || (slash && slash < colon))
		return NULL;
	*colon = 0;
	return colon + 1;
}

struct place {
	char *vm;   /* NULL: the host */
	char *path; /* "-": a stream */
};

static struct place place_of(char *argument)
{
	char *path = guest_path(argument);

	return path ? (struct place){ argument, path } : (struct place){ NULL, argument };
}

static bool is_stream(const struct place *p)
{
	return !p->vm && strcmp(p->path, "-") == 0;
}

static int check_names(const struct place *src, int n)
{
	for (int i = 0; i < n; i++) {
		struct tree_pack_name a, b;

		for (int k = 0; k < i; k++)
			if (tree_pack_name_of(src[i].path, &a) == 0 &&
				tree_pack_name_of(src[k].path, &b) == 0 && a.name[0] &&
				strcmp(a.name, b.name) == 0)
				return fail(UVMS_EXIT_USAGE, NULL, "copy them one after the other",
					"%s and %s would become the same file", src[k].path,
					src[i].path);
	}
	return 0;
}

static int check_places(const struct place *src, int n, const struct place *dst)
{
	for (int i = 0; i < n; i++) {
		if (!src[i].vm && !dst->vm)
			return fail(UVMS_EXIT_USAGE, "neither of the two is of a VM (NAME:PATH)",
				NULL, "%s cannot be copied to %s", src[i].path, dst->path);
		if (src[i].vm && dst->vm)
			return fail(UVMS_EXIT_NOT_SUPPORTED,
				"from one VM to another is not supported yet",
				"uvms cp A:PATH - | uvms cp - B:DIRECTORY", "%s:%s: no such way",
				src[i].vm, src[i].path);
		if (!*src[i].path || (is_stream(&src[i]) && n > 1))
			return fail(UVMS_EXIT_USAGE,
				*src[i].path ? "- stands alone" : "a path is missing", NULL,
				"the sources cannot be understood");
	}
	if (!*dst->path)
		return fail(UVMS_EXIT_USAGE, "a path is missing", NULL,
			"the target cannot be understood");
	return is_stream(dst) ? 0 : check_names(src, n);
}

static int get_to_stdout(struct copy_run *c, const struct place *src, int n)
{
	static const char end[TAR_END_BYTES];
	int r = 0;

	if (isatty(STDOUT_FILENO))
		return fail(UVMS_EXIT_USAGE, "it is a tar stream",
			"give it a file or a pipe, as in: uvms cp NAME:PATH - | tar t",
			"stdout is a terminal");
	for (int i = 0; i < n && r == 0; i++)
		r = copy_get_stream(c, src[i].vm, src[i].path);
	/* without it a reader sees that the stream was cut */
	if (r == 0 && fd_write_all(STDOUT_FILENO, end, sizeof end) < 0)
		r = fail(UVMS_EXIT_FAILED, NULL, NULL, "stdout cannot be written to");
	return r;
}

static int put(struct copy_run *c, const struct place *src, int n, const struct place *dst)
{
	CLEANUP_FREE char **paths = calloc((size_t)n, sizeof *paths);

	if (!paths)
		return fail(UVMS_EXIT_FAILED, strerror(ENOMEM), NULL, "nothing was copied");
	if (is_stream(&src[0]))
		return copy_put_stream(c, dst->vm, dst->path);
	for (int i = 0; i < n; i++)
		paths[i] = src[i].path;
	return copy_put(c, paths, n, dst->vm, dst->path);
}

static int get(struct copy_run *c, const struct place *src, int n, const char *to)
{
	int first = 0;

	for (int i = 0; i < n && !c->signo; i++) {
		int r = copy_get(c, src[i].vm, src[i].path, to, n > 1);

		if (r && !first)
			first = r;
	}
	return c->signo ? 128 + c->signo : first;
}

static int run_cp(int argc, char **argv)
{
	CLEANUP_FREE struct place *places = calloc((size_t)argc, sizeof *places);
	struct place *dst = places + argc - 1;
	bool into_guest, to_stream;
	struct copy_options o = { arg_follow, arg_one_fs, false, arg_quiet };
	struct copy_run c;
	int r;

	if (!places)
		return fail(UVMS_EXIT_FAILED, strerror(ENOMEM), NULL, "nothing was copied");
	for (int i = 0; i < argc; i++)
		places[i] = place_of(argv[i]);
	r = check_places(places, argc - 1, dst);
	if (r)
		return r;
	into_guest = dst->vm;
	to_stream = is_stream(dst);
	o.owner = !arg_no_owner && (arg_archive || (into_guest && geteuid() == 0));
	/* what is killed leaves nothing behind when it writes no file */
	copy_run_init(&c, &o, !to_stream);
	if (into_guest)
		r = put(&c, places, argc - 1, dst);
	else if (to_stream)
		r = get_to_stdout(&c, places, argc - 1);
	else
		r = get(&c, places, argc - 1, dst->path);
	r = copy_run_report(&c, r);
	copy_run_finish(&c);
	return r;
}

const struct verb verb_cp = {
	.name = "cp",
	.arguments = "[OPTIONS] SRC... DST",
	.summary = "copy files and trees into a running VM, or out of it",
	.description =
		"One side is NAME:PATH, in the guest; \"-\" as the other one is a tar stream. "
		"If DST is a\n"
		"directory, things go into it; SRC/. is what is in SRC.",
	.options = options,
	.min = 2,
	.max = -1,
	.run = run_cp,
};
