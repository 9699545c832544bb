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
#include "kernel-add.h"
#include "oci.h"
#include "store-edit.h"
#include "store.h"
#include "str.h"
#include "text-table.h"
#include "verb-list.h"

static bool arg_from_deb, arg_from_boot, arg_quiet, arg_json;
static const char *arg_from_image, *arg_modules, *arg_name;

static const struct option_def add_options[] = {
	{ "from-deb", 0, NULL, OPTION_FLAG, &arg_from_deb,
		"from a Debian package, by default linux-image-cloud-amd64" },
	{ "from-boot", 0, NULL, OPTION_FLAG, &arg_from_boot,
		"from the host's /boot and /lib/modules, by default the newest" },
	{ "from-image", 0, "IMAGE", OPTION_STRING, &arg_from_image, "from an image in the store" },
	{ "modules", 0, "DIR", OPTION_STRING, &arg_modules, "with FILE: its lib/modules/RELEASE" },
	{ "name", 0, "NAME", OPTION_STRING, &arg_name, "its name; by default the release" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "print the name alone" },
	{ 0 },
};

static const struct option_def ls_options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "names only" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "a JSON array" },
	{ 0 },
};

static int check_add(int argc)
{
	const char *problem = arg_name ? oci_name_problem(arg_name) : NULL;
	int sources = arg_from_deb + arg_from_boot + !!arg_from_image + !!arg_modules;

	if (problem)
		return fail(UVMS_EXIT_USAGE, problem, NULL, "\"%s\" cannot be a kernel's name",
			arg_name);
	if (sources != 1 || (arg_modules && argc == 0) || (arg_from_image && argc > 0))
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms kernel add --from-deb [PACKAGE], --from-boot [RELEASE], --from-image "
			"IMAGE, "
			"or FILE --modules DIR",
			"a kernel is added from one source");
	return 0;
}

static void say_added(const struct kernel_added *k)
{
	CLEANUP_FREE char *kernel = cli_store_size(k->kernel_bytes);
	CLEANUP_FREE char *modules = cli_store_size(k->modules_bytes);

	if (k->note)
		fail(0, k->note, "it boots with QEMU only, and slower",
			"kernel %s stays compressed", k->name);
	fail_say("kernel %s is added: %s, %zu modules of %s", k->name, str_or(kernel, ""),
		k->n_modules, str_or(modules, ""));
}

static int run_add(int argc, char **argv)
{
	CLEANUP(store_closep) struct store *s = NULL;
	CLEANUP(kernel_added_finish) struct kernel_added added = { 0 };
	CLEANUP_FREE char *reason = NULL;
	const char *word = argc > 0 ? argv[0] : "";
	struct kernel_add k = { .name = arg_name,
		.modules = arg_modules,
		.file = arg_modules ? word : NULL,
		.from_deb = arg_from_deb ? word : NULL,
		.from_boot = arg_from_boot ? word : NULL,
		.from_image = arg_from_image,
		.say = arg_quiet ? NULL : cli_store_say };
	int r = check_add(argc);

	if (r)
		return r;
	s = cli_store();
	r = kernel_add(s, &k, &added, &reason);
	if (r < 0)
		return cli_store_fail(r, reason, NULL, "the kernel cannot be added");
	if (!arg_quiet)
		say_added(&added);
	puts(added.name);
	return 0;
}

static struct json_object *kernel_json(const struct store_kernel *k, bool is_default)
{
	struct json_object *o = json_object_new_object();
	const struct {
		const char *key, *value;
	} texts[] = { { "name", k->name }, { "digest", k->digest }, { "release", k->release },
		{ "kernel", k->kernel }, { "modules", k->modules }, { "created", k->created } };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (texts[i].value)
			json_object_object_add(
				o, texts[i].key, json_object_new_string(texts[i].value));
	}
	json_object_object_add(o, "size_bytes", json_object_new_uint64(k->size_bytes));
	json_object_object_add(o, "default", json_object_new_boolean(is_default));
	return o;
}

struct listing {
	struct text_table *table;
	struct json_object *array;
	char *default_name; /* owned */
};

static int ls_one(struct store *s, const char *ref, struct listing *l)
{
	CLEANUP(store_kernel_finish) struct store_kernel k = { 0 };
	CLEANUP_FREE char *reason = NULL, *doing = NULL, *size = NULL;
	bool is_default = str_eq(ref, l->default_name);
	int r = store_find_kernel(s, ref, &k, &reason);

	if (r < 0) {
		doing = str_printf("kernel %s cannot be used", ref);
		return cli_store_fail(
			r, reason, "uvms kernel rm, then add it again", str_or(doing, ref));
	}
	size = cli_store_size(k.size_bytes);
	if (arg_json)
		json_object_array_add(l->array, kernel_json(&k, is_default));
	else if (arg_quiet)
		puts(ref);
	else
		text_table_row(l->table, (const char *[]){ k.name, k.release, size, k.created,
						 is_default ? "default" : NULL });
	return 0;
}

static int run_ls(int argc, char **argv)
{
	static const char *const headings[] = { "NAME", "RELEASE", "SIZE", "CREATED", "NOTE",
		NULL };
	CLEANUP(store_closep) struct store *s = cli_store();
	CLEANUP(store_kernel_finish) struct store_kernel chosen = { 0 };
	CLEANUP(strv_freep) char **refs = NULL;
	CLEANUP_FREE char *reason = NULL, *ignored = NULL;
	struct listing l = { 0 };
	int r, worst = 0;

	r = store_edit_list(s, STORE_INDEX_KERNEL, &refs, &reason);
	if (r < 0)
		return cli_store_fail(r, reason, NULL, "kernels cannot be listed");
	if (store_find_kernel(s, NULL, &chosen, &ignored) == 0)
		l.default_name = chosen.name ? chosen.name : chosen.digest;
	l.table = text_table_create(headings);
	l.array = json_object_new_array();
	for (char **ref = refs; ref && *ref; ref++) {
		r = ls_one(s, *ref, &l);
		worst = worst ? worst : r;
	}
	if (arg_json)
		cli_print_json(json_object_get(l.array));
	else if (!arg_quiet)
		text_table_print(l.table);
	text_table_destroy(l.table);
	json_object_put(l.array);
	return worst;
}

static int rm_one(struct store *s, const char *ref)
{
	CLEANUP_FREE char *reason = NULL, *doing = NULL;
	int r = store_edit_remove(s, STORE_INDEX_KERNEL, ref, &reason);

	if (r == -ENOENT)
		return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms kernel ls shows what there is",
			"there is no kernel %s", ref);
	if (r == 0)
		return 0;
	doing = str_printf("kernel %s cannot be removed", ref);
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

const struct verb verb_kernel_add = {
	.name = "kernel add",
	.arguments = "(--from-deb [PACKAGE] | --from-boot [RELEASE] | --from-image IMAGE | FILE "
		     "--modules DIR) "
		     "[--name NAME]",
	.summary = "add a kernel with the modules that a guest needs to boot",
	.options = add_options,
	.max = 1,
	.run = run_add,
};

const struct verb verb_kernel_ls = {
	.name = "kernel ls",
	.arguments = "[-q | --json]",
	.summary = "list the kernels",
	.options = ls_options,
	.run = run_ls,
};

const struct verb verb_kernel_rm = {
	.name = "kernel rm",
	.arguments = "NAME...",
	.summary = "remove kernels",
	.min = 1,
	.max = -1,
	.run = run_rm,
};
