#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "file.h"
#include "lock.h"
#include "snapshot.h"
#include "str.h"
#include "text-table.h"
#include "verb-list.h"
#include "vm-name.h"
#include "vm-status.h"

static bool arg_quiet, arg_json;

static const struct option_def ls_options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "names only" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "a JSON array" },
	{ 0 },
};

static int cannot(const char *doing, int error)
{
	return fail(control_error_exit(error), strerror(-error), NULL, "%s", doing);
}

/* ls */

/* Of all its files, "DIGEST SIZE NAME" each. */
static uint64_t size_of(const struct snapshot *s)
{
	uint64_t sum = 0, size;

	for (char **f = s->files; f && *f; f++)
		sum += sscanf(*f, "%*s %" SCNu64, &size) == 1 ? size : 0;
	return sum;
}

static void add_json(struct json_object *array, const char *name, const struct snapshot *s)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "name", json_object_new_string(name));
	json_object_object_add(o, "whole", json_object_new_boolean(s->vm != NULL));
	json_object_array_add(array, o);
	if (!s->vm)
		return;
	json_object_object_add(o, "vm", json_object_new_string(s->vm));
	json_object_object_add(o, "vmm", json_object_new_string(s->vmm));
	json_object_object_add(o, "uvms", json_object_new_string(str_or(s->uvms, "")));
	json_object_object_add(o, "size_bytes", json_object_new_uint64(size_of(s)));
	json_object_object_add(o, "created_usec", json_object_new_uint64(s->created_usec));
}

static void add_row(struct text_table *t, const char *name, const struct snapshot *s)
{
	CLEANUP_FREE char *size = s->vm ? cli_store_size(size_of(s)) : NULL;
	time_t at = (time_t)(s->created_usec / 1000000);
	char when[32] = "";
	struct tm tm;

	if (s->vm && localtime_r(&at, &tm))
		strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
	text_table_row(t, (const char *[]){ name, s->vm ? s->vm : "(not whole)",
				  *when ? when : NULL, size, s->vmm });
}

static void ls_one(const char *name, struct text_table *t, struct json_object *array)
{
	CLEANUP(snapshot_finish) struct snapshot s = { 0 };
	CLEANUP_CLOSE int dir = snapshot_open(name);

	if (dir < 0) /* it is being removed */
		return;
	if (snapshot_read(dir, &s) < 0)
		s = (struct snapshot){ 0 };
	if (arg_json)
		add_json(array, name, &s);
	else if (arg_quiet)
		puts(name);
	else
		add_row(t, name, &s);
}

static int run_ls(int argc, char **argv)
{
	static const char *const headings[] = { "NAME", "VM", "MADE", "SIZE", "BY", NULL };
	CLEANUP(strv_freep) char **names = NULL;
	struct json_object *array = json_object_new_array();
	struct text_table *t = text_table_create(headings);
	int r = snapshot_list(&names);

	if (r < 0)
		r = cannot("the snapshots cannot be listed", r);
	for (char **n = names; r == 0 && n && *n; n++)
		ls_one(*n, t, array);
	if (r == 0 && arg_json)
		cli_print_json(json_object_get(array));
	else if (r == 0 && !arg_quiet)
		text_table_print(t);
	json_object_put(array);
	text_table_destroy(t);
	return r;
}

/* rm */

/* A VM whose memory is still in it. */
struct search {
	const char *snapshot; /* borrowed */
	char vm[VM_NAME_MAX + 1];
};

static int vm_reads_it(const char *vm_name, void *userdata)
{
	struct vm_status status = { 0 };
	struct search *s = userdata;
	bool reads;

	if (vm_status_look(cli_dirs(), vm_name, &status) < 0)
		return 0;
	reads = vm_status_is_alive(&status) && status.restored &&
		str_has_prefix(status.restored, "on demand") &&
		str_eq(status.snapshot, s->snapshot);
	vm_status_finish(&status);
	if (reads)
		snprintf(s->vm, sizeof s->vm, "%s", vm_name);
	return reads;
}

/* Under a hidden name it is none any more, and what a killed one of us leaves is swept by the next snapshot. */
static int remove_it(const char *name)
{
	CLEANUP_CLOSE int all = vm_dirs_open_state(cli_dirs(), VM_SNAPSHOTS), dir = -EBADF;
	CLEANUP_FREE char *hidden = str_printf(".%s.gone", name);
	int r;

	if (all < 0 || !hidden)
		return all < 0 ? all : -ENOMEM;
	dir = snapshot_open(name);
	r = dir < 0 ? dir : lock_named_take(dir);
	if (r == 0 && renameat(all, name, all, hidden) < 0)
		r = -errno;
	return r < 0 ? r : file_remove_tree_at(all, hidden);
}

static int rm_one(const char *name)
{
	struct search s = { .snapshot = name };
	int r = cli_each_vm(vm_reads_it, &s);

	if (r == 1)
		return fail(UVMS_EXIT_BUSY, NULL, "uvms stop it first",
			"%s runs, and still reads its memory from snapshot %s", s.vm, name);
	if (r == 0)
		r = remove_it(name);
	if (r == -ENOENT || r == -EINVAL)
		return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms snapshot ls shows what there is",
			"there is no snapshot %s", name);
	if (r == -EBUSY)
		return fail(
			UVMS_EXIT_BUSY, NULL, "try again", "snapshot %s is being removed", name);
	return r < 0 ? cannot(name, r) : 0;
}

static int run_rm(int argc, char **argv)
{
	int worst = 0;

	for (int i = 0; i < argc; i++) {
		int r = rm_one(argv[i]);

		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_snapshot_ls = {
	.name = "snapshot ls",
	.arguments = "[-q | --json]",
	.summary = "list the snapshots",
	.options = ls_options,
	.run = run_ls,
};

const struct verb verb_snapshot_rm = {
	.name = "snapshot rm",
	.arguments = "SNAPSHOT...",
	.summary = "remove snapshots",
	.min = 1,
	.max = -1,
	.run = run_rm,
};
