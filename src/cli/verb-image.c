#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "image-build.h"
#include "oci.h"
#include "store-edit.h"
#include "store.h"
#include "str.h"
#include "text-table.h"
#include "verb-list.h"

static const char *arg_dir, *arg_debian, *arg_script;
static char **arg_include;
static bool arg_quiet, arg_json;

static const struct option_def build_options[] = {
	{ "from-dir", 0, "DIR", OPTION_STRING, &arg_dir, "from the files below DIR" },
	{ "from-debian", 0, "SUITE", OPTION_STRING, &arg_debian,
		"from packages of a Debian suite" },
	{ "include", 0, "PACKAGE,...", OPTION_STRV, &arg_include,
		"with --from-debian: more packages" },
	{ "script", 0, "FILE", OPTION_STRING, &arg_script,
		"with --from-debian: run FILE in the tree after the installation" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "print the digest alone" },
	{ 0 },
};

static const struct option_def ls_options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "names only" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "a JSON array" },
	{ 0 },
};

static int not_found(const char *name)
{
	return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms image ls shows what there is",
		"there is no image %s", name);
}

static int check_build(const char *name)
{
	const char *problem = oci_name_problem(name);

	if (problem)
		return fail(
			UVMS_EXIT_USAGE, problem, NULL, "\"%s\" cannot be an image's name", name);
	if (!arg_dir == !arg_debian)
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms image build NAME --from-dir DIR, or --from-debian SUITE",
			"an image is built from one source");
	if (arg_dir && (arg_include || arg_script))
		return fail(UVMS_EXIT_USAGE, NULL, NULL,
			"--include and --script go with --from-debian");
	return 0;
}

/* Said before the work: what runs keeps the old one, what starts later gets the new one. */
static void say_replaced(struct store *s, const char *name)
{
	CLEANUP_FREE char *reason = NULL;
	struct store_image i = { 0 };

	if (!arg_quiet && store_find_image(s, name, &i, &reason) == 0 && str_eq(i.name, name))
		fail_say("%s exists (%.19s) and will be replaced; running VMs keep the old one",
			name, i.digest);
	store_image_finish(&i);
}

static int run_build(int argc, char **argv)
{
	CLEANUP(store_closep) struct store *s = NULL;
	CLEANUP_FREE char *reason = NULL, *doing = NULL, *size = NULL;
	struct image_build b = { .name = argv[0],
		.from_dir = arg_dir,
		.from_debian = arg_debian,
		.include = (const char *const *)arg_include,
		.script = arg_script,
		.say = arg_quiet ? NULL : cli_store_say };
	struct image_built built;
	int r = check_build(argv[0]);

	if (r)
		return r;
	s = cli_store();
	say_replaced(s, argv[0]);
	r = image_build(s, &b, &built, &reason);
	if (r < 0) {
		doing = str_printf("image %s cannot be built", argv[0]);
		return cli_store_fail(r, reason, NULL, str_or(doing, argv[0]));
	}
	size = cli_store_size(built.size_bytes);
	if (!arg_quiet)
		fail_say("image %s is built: %s", argv[0], str_or(size, ""));
	puts(built.digest);
	return 0;
}

static struct json_object *image_json(const struct store_image *i)
{
	struct json_object *o = json_object_new_object(), *layers = json_object_new_array(),
			   *config = json_object_new_object();

	if (i->name)
		json_object_object_add(o, "name", json_object_new_string(i->name));
	json_object_object_add(o, "digest", json_object_new_string(i->digest));
	for (char **l = i->layers; l && *l; l++)
		json_object_array_add(layers, json_object_new_string(*l));
	json_object_object_add(o, "layers", layers);
	if (i->created)
		json_object_object_add(o, "created", json_object_new_string(i->created));
	json_object_object_add(o, "size_bytes", json_object_new_uint64(i->size_bytes));
	(void)image_config_write(&i->config, config);
	json_object_object_add(o, "config", config);
	return o;
}

static void image_row(struct text_table *t, const struct store_image *i)
{
	CLEANUP_FREE char *size = cli_store_size(i->size_bytes);
	CLEANUP_FREE char *digest = str_printf("%.12s", i->digest + 7);

	text_table_row(t, (const char *[]){ i->name, digest, size, i->created });
}

static int ls_one(struct store *s, const char *ref, struct text_table *t, struct json_object *array)
{
	CLEANUP(store_image_finish) struct store_image i = { 0 };
	CLEANUP_FREE char *reason = NULL, *doing = NULL;
	int r = store_find_image(s, ref, &i, &reason);

	if (r < 0) {
		doing = str_printf("image %s cannot be used", ref);
		return cli_store_fail(
			r, reason, "uvms image rm, then build it again", str_or(doing, ref));
	}
	if (arg_json)
		json_object_array_add(array, image_json(&i));
	else if (arg_quiet)
		puts(ref);
	else
		image_row(t, &i);
	return 0;
}

static int run_ls(int argc, char **argv)
{
	static const char *const headings[] = { "NAME", "DIGEST", "SIZE", "CREATED", NULL };
	CLEANUP(store_closep) struct store *s = cli_store();
	CLEANUP(strv_freep) char **refs = NULL;
	CLEANUP_FREE char *reason = NULL;
	struct json_object *array;
	struct text_table *t;
	int r, worst = 0;

	r = store_edit_list(s, STORE_INDEX_IMAGE, &refs, &reason);
	if (r < 0)
		return cli_store_fail(r, reason, NULL, "images cannot be listed");
	t = text_table_create(headings);
	array = json_object_new_array();
	for (char **ref = refs; ref && *ref; ref++) {
		r = ls_one(s, *ref, t, array);
		worst = worst ? worst : r;
	}
	if (arg_json)
		cli_print_json(json_object_get(array));
	else if (!arg_quiet)
		text_table_print(t);
	text_table_destroy(t);
	json_object_put(array);
	return worst;
}

static int run_inspect(int argc, char **argv)
{
	CLEANUP(store_closep) struct store *s = cli_store();
	CLEANUP(store_image_finish) struct store_image i = { 0 };
	CLEANUP_FREE char *reason = NULL, *doing = NULL;
	int r = store_find_image(s, argv[0], &i, &reason);

	if (r == -ENOENT)
		return not_found(argv[0]);
	if (r < 0) {
		doing = str_printf("image %s cannot be read", argv[0]);
		return cli_store_fail(r, reason, NULL, str_or(doing, argv[0]));
	}
	cli_print_json(image_json(&i));
	return 0;
}

static int rm_one(struct store *s, const char *ref)
{
	CLEANUP_FREE char *reason = NULL, *doing = NULL;
	int r = store_edit_remove(s, STORE_INDEX_IMAGE, ref, &reason);

	if (r == -ENOENT)
		return not_found(ref);
	if (r == 0)
		return 0;
	doing = str_printf("image %s cannot be removed", ref);
	return cli_store_fail(r, reason, NULL, str_or(doing, ref));
}

static int run_rm(int argc, char **argv)
{
	CLEANUP(store_closep) struct store *s = cli_store();
	int worst = 0;

	for (int i = 0; i < argc; i++) {
		int r = rm_one(s, argv[i]);

		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_image_build = {
	.name = "image build",
	.arguments = "NAME (--from-dir DIR | --from-debian SUITE [--include PACKAGE,...] [--script "
		     "FILE])",
	.summary = "make an image",
	.description = "The image is one read-only EROFS layer in the store. The same input gives "
		       "the same\n"
		       "digest, which is printed. A name that exists is given to the new image.",
	.options = build_options,
	.min = 1,
	.max = 1,
	.run = run_build,
};

const struct verb verb_image_ls = {
	.name = "image ls",
	.arguments = "[-q | --json]",
	.summary = "list the images",
	.options = ls_options,
	.run = run_ls,
};

const struct verb verb_image_inspect = {
	.name = "image inspect",
	.arguments = "NAME",
	.summary = "show an image as JSON",
	.min = 1,
	.max = 1,
	.run = run_inspect,
};

const struct verb verb_image_rm = {
	.name = "image rm",
	.arguments = "NAME...",
	.summary = "remove images and what only they used",
	.min = 1,
	.max = -1,
	.run = run_rm,
};
