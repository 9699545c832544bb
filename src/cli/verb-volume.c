#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "str.h"
#include "text-table.h"
#include "verb-list.h"
#include "vm-spec.h"
#include "vm-volume.h"
#include "volume.h"

static bool arg_quiet, arg_json, arg_force;

static const struct option_def ls_options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "names only" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "a JSON array" },
	{ 0 },
};

static const struct option_def rm_options[] = {
	{ "force", 'f', NULL, OPTION_FLAG, &arg_force, "even when a stopped VM is made with it" },
	{ 0 },
};

static int cannot(const char *doing, int error)
{
	return fail(UVMS_EXIT_FAILED, strerror(-error), NULL, "%s", doing);
}

struct search {
	const char *volume; /* borrowed */
	char vm[VM_VOLUME_NAME_MAX + 1];
};

/* 1: this VM is made with the volume. */
static int vm_has_volume(const char *vm_name, void *userdata)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), vm_name, false);
	CLEANUP(vm_spec_finish) struct vm_spec spec = { 0 };
	CLEANUP_FREE char *reason = NULL;
	struct search *s = userdata;
	struct vm_volume v;
	const char *why;

	if (vm < 0 || vm_spec_read(vm, &spec, &reason) < 0)
		return 0;
	for (char **text = spec.volumes; text && *text; text++) {
		if (vm_volume_parse(*text, &v, &why) < 0 || !str_eq(v.name, s->volume))
			continue;
		snprintf(s->vm, sizeof s->vm, "%s", vm_name);
		return 1;
	}
	return 0;
}

static struct json_object *volume_json(const struct volume *v, const char *vm)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "name", json_object_new_string(v->name));
	json_object_object_add(o, "size_bytes", json_object_new_uint64(v->size_bytes));
	json_object_object_add(o, "used_bytes", json_object_new_uint64(v->used_bytes));
	json_object_object_add(o, "in_use", json_object_new_boolean(v->in_use));
	if (*vm)
		json_object_object_add(o, "vm", json_object_new_string(vm));
	return o;
}

static void volume_row(struct text_table *t, const struct volume *v, const char *vm)
{
	CLEANUP_FREE char *size = cli_store_size(v->size_bytes);
	CLEANUP_FREE char *used = cli_store_size(v->used_bytes);

	text_table_row(t,
		(const char *[]){ v->name, size, used, v->in_use ? "yes" : "no", *vm ? vm : NULL });
}

static int ls_one(int volumes, const char *name, struct text_table *t, struct json_object *array)
{
	CLEANUP(volume_finish) struct volume v = { 0 };
	struct search s = { .volume = name };
	int r = volume_look(volumes, name, &v);

	if (r == -ENOENT) /* it is being made or removed */
		return 0;
	if (r < 0)
		return cannot(name, r);
	(void)cli_each_vm(vm_has_volume, &s);
	if (arg_json)
		json_object_array_add(array, volume_json(&v, s.vm));
	else if (arg_quiet)
		puts(v.name);
	else
		volume_row(t, &v, s.vm);
	return 0;
}

static int run_ls(int argc, char **argv)
{
	static const char *const headings[] = { "NAME", "SIZE", "USED", "IN USE", "VM", NULL };
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(cli_dirs(), "volumes");
	CLEANUP(strv_freep) char **names = NULL;
	struct json_object *array = json_object_new_array();
	struct text_table *t = text_table_create(headings);
	int r = volumes < 0 ? volumes : volume_list(volumes, &names);

	if (r < 0)
		r = cannot("the volumes cannot be listed", r);
	for (char **n = names; r == 0 && n && *n; n++)
		r = ls_one(volumes, *n, t, array);
	if (r == 0 && arg_json)
		cli_print_json(json_object_get(array));
	else if (r == 0 && !arg_quiet)
		text_table_print(t);
	json_object_put(array);
	text_table_destroy(t);
	return r;
}

static int rm_one(int volumes, const char *name)
{
	struct search s = { .volume = name };
	int r;

	if (vm_volume_check_name(name) < 0)
		return fail(UVMS_EXIT_USAGE, NULL, NULL, "\"%s\" cannot be a volume's name", name);
	if (!arg_force && cli_each_vm(vm_has_volume, &s) == 1)
		return fail(UVMS_EXIT_BUSY, NULL,
			"uvms rm that VM first, or uvms volume rm --force",
			"the VM %s is made with volume %s", s.vm, name);
	r = volume_remove(volumes, name);
	if (r == -ENOENT)
		return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms volume ls shows what there is",
			"there is no volume %s", name);
	if (r == -EBUSY)
		return fail(UVMS_EXIT_BUSY, NULL, "uvms volume ls shows by whom",
			"volume %s is in use", name);
	return r < 0 ? cannot(name, r) : 0;
}

static int run_rm(int argc, char **argv)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(cli_dirs(), "volumes");
	int worst = 0;

	if (volumes < 0)
		return cannot("the volumes cannot be reached", volumes);
	for (int i = 0; i < argc; i++) {
		int r = rm_one(volumes, argv[i]);

		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_volume_ls = {
	.name = "volume ls",
	.arguments = "[-q | --json]",
	.summary = "list the volumes",
	.options = ls_options,
	.run = run_ls,
};

const struct verb verb_volume_rm = {
	.name = "volume rm",
	.arguments = "[-f] NAME...",
	.summary = "remove volumes and all that is in them",
	.options = rm_options,
	.min = 1,
	.max = -1,
	.run = run_rm,
};
