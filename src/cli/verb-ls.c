#include <dirent.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cleanup.h"
#include "cli.h"
#include "runtime-dir.h"
#include "str.h"
#include "text-table.h"
#include "verb-list.h"
#include "vm-status.h"

static bool arg_all, arg_quiet, arg_json;

static const struct option_def options[] = {
	{ "all", 'a', NULL, OPTION_FLAG, &arg_all, "the stopped ones too" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "names only" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "a JSON array of status objects" },
	{ 0 },
};

struct listing {
	struct text_table *table;
	struct json_object *array;
	struct dirent **running; /* owned: what there is below the runtime directory, in order */
	int n_running;
};

static int is_name(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_entry(const void *name, const void *entry)
{
	return strcmp(name, (*(struct dirent *const *)entry)->d_name);
}

/* Most VMs of a long list do not run: they need not be looked for one by one. */
static bool may_run(const struct listing *l, const char *name)
{
	return l->n_running < 0 ||
	       (l->n_running > 0 && bsearch(name, l->running, (size_t)l->n_running,
					    sizeof *l->running, is_entry));
}

static char *age(const struct vm_status *s)
{
	uint64_t from = s->started_usec / 1000000, now = (uint64_t)time(NULL);
	uint64_t seconds = now > from ? now - from : 0;

	if (from == 0)
		return NULL;
	if (seconds < 120)
		return str_printf("%llus", (unsigned long long)seconds);
	if (seconds < 7200)
		return str_printf("%llumin", (unsigned long long)seconds / 60);
	if (seconds < 172800)
		return str_printf("%lluh", (unsigned long long)seconds / 3600);
	return str_printf("%llud", (unsigned long long)seconds / 86400);
}

static void add_row(struct listing *l, const struct vm_status *s)
{
	CLEANUP_FREE char *started = age(s);
	CLEANUP_FREE char *cid = vm_status_is_alive(s) ? str_printf("%u", s->cid) : NULL;
	const char *note = vm_status_is_alive(s) ? s->ready : s->outcome;

	text_table_row(l->table,
		(const char *[]){ s->name, s->state, note, s->image, s->accel, cid, started });
}

static int add(const char *name, void *userdata)
{
	struct listing *l = userdata;
	struct vm_status s = { 0 };

	/* what a killed supervisor left is put in order on the way; 0: nothing runs or was left */
	bool stopped = !may_run(l, name) || runtime_dir_sweep(cli_dirs(), name) == 0;
	int r = 0;

	if (stopped && !arg_all)
		return 0;
	r = stopped ? vm_status_last(cli_dirs(), name, &s) : vm_status_look(cli_dirs(), name, &s);
	if (r < 0 || (!arg_all && !vm_status_is_alive(&s))) {
		vm_status_finish(&s);
		return 0;
	}
	if (arg_json)
		json_object_array_add(l->array, vm_status_to_json(&s));
	else if (arg_quiet)
		puts(s.name);
	else
		add_row(l, &s);
	vm_status_finish(&s);
	return 0;
}

static int run(int argc, char **argv)
{
	static const char *const headings[] = { "NAME", "STATE", "NOTE", "IMAGE", "ACCEL", "CID",
		"STARTED", NULL };
	struct listing l = { text_table_create(headings), json_object_new_array() };

	l.n_running = scandir(cli_dirs()->runtime, &l.running, is_name, by_name);
	cli_each_vm(add, &l);
	for (int i = 0; i < l.n_running; i++)
		free(l.running[i]);
	free(l.running);
	if (arg_json)
		cli_print_json(json_object_get(l.array));
	else if (!arg_quiet)
		text_table_print(l.table);
	text_table_destroy(l.table);
	json_object_put(l.array);
	return 0;
}

const struct verb verb_ls = {
	.name = "ls",
	.arguments = "[-a] [-q | --json]",
	.summary = "list the VMs that run",
	.options = options,
	.run = run,
};
