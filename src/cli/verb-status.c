#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "runtime-dir.h"
#include "store.h"
#include "str.h"
#include "verb-list.h"
#include "vm-spec.h"
#include "vm-status.h"

static bool arg_json;

static const struct option_def options[] = {
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "the status object as JSON" },
	{ 0 },
};

static int look(const char *name, struct vm_status *ret)
{
	int r = cli_check_name(name);

	if (r)
		return r;
	(void)runtime_dir_sweep(cli_dirs(), name);
	r = vm_status_look(cli_dirs(), name, ret);
	if (r == -ENOENT)
		return cli_no_vm(name);
	if (r < 0)
		return fail(
			UVMS_EXIT_FAILED, strerror(-r), NULL, "%s's status cannot be read", name);
	return 0;
}

static void line(const char *label, const char *value)
{
	char safe[4096];

	if (!value || !*value)
		return;
	str_escape(safe, sizeof safe, value, strlen(value), "\n\t\\");
	printf("%12s: %s\n", label, safe);
}

static void line_number(const char *label, uint64_t value, const char *unit)
{
	if (value)
		printf("%12s: %llu%s\n", label, (unsigned long long)value, unit);
}

static void line_time(const char *label, uint64_t usec)
{
	time_t t = (time_t)(usec / 1000000);
	char text[64];
	struct tm tm;

	if (usec == 0 || !localtime_r(&t, &tm))
		return;
	strftime(text, sizeof text, "%F %T %Z", &tm);
	printf("%12s: %s\n", label, text);
}

/* What a name means by now, when that is not what the VM runs with: nothing else is of interest here. */
static void line_update(const struct vm_status *s)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), s->name, false);
	CLEANUP(store_image_finish) struct store_image image = { 0 };
	CLEANUP(store_kernel_finish) struct store_kernel kernel = { 0 };
	CLEANUP(vm_spec_finish) struct vm_spec spec = { 0 };
	CLEANUP(store_closep) struct store *store = NULL;
	CLEANUP_FREE char *reason = NULL, *why = NULL;
	const char *when;

	if (!vm_status_is_alive(s) || !s->image_digest || vm < 0 ||
		vm_spec_read(vm, &spec, &reason) < 0)
		return;
	when = spec.command || geteuid() != 0 ? "it starts again" : "it reboots or starts again";
	store = cli_store();
	if (store_find_image(store, spec.image, &image, &why) == 0 &&
		!str_eq(image.digest, s->image_digest))
		printf("%12s: %.19s, when %s\n", "update", image.digest, when);
	free(TAKE_PTR(why));
	if (store_find_kernel(store, spec.kernel, &kernel, &why) == 0 &&
		!str_eq(kernel.digest, s->kernel_digest))
		printf("%12s: kernel %.19s, when %s\n", "update", kernel.digest, when);
}

static void print(const struct vm_status *s)
{
	line("name", s->name);
	line("state", s->state);
	line("image", s->image);
	line_update(s);
	line("ready", s->ready);
	line("failed units", s->failed_units);
	line("outcome", s->outcome);
	line("cause", s->cause);
	if (s->exit_source)
		printf("%12s: %u (%s)\n", "exit", s->exit_code, s->exit_source);
	line("back-end", s->backend);
	line("chosen", s->backend_reason);
	line("accelerator", s->accel);
	line("vsock", s->vsock);
	line("network", s->network);
	for (char **v = s->attached; v && *v; v++)
		line("attached", *v);
	for (size_t i = 0; i < s->n_mounts; i++) {
		const struct vm_status_mount *m = &s->mounts[i];
		CLEANUP_FREE char *text =
			str_printf("%s: %s %s%s%s", str_or(m->path, "?"), str_or(m->kind, "?"),
				str_or(m->source, "?"), str_eq(m->state, "mounted") ? "" : ": ",
				str_eq(m->state, "mounted") ? "" : str_or(m->state, "?"));

		line("mounted", text);
	}
	line("snapshot", s->snapshot);
	line("restored", s->restored);
	line("isolation", s->isolation);
	line_time("started", s->started_usec);
	if (s->ready_usec > s->started_usec)
		printf("%12s: %.1f s\n", "ready after",
			(double)(s->ready_usec - s->started_usec) / 1e6);
	line_time("stopped", s->stopped_usec);
	line_number("boots", s->boots, "");
	line_number("CPUs", s->cpus, "");
	line_number("memory", s->memory_bytes >> 20, " MiB");
	line_number("CID", s->cid, "");
	line_number("uid", s->uid, "");
	line_number("supervisor", vm_status_is_alive(s) ? s->supervisor_pid : 0, "");
	line_number("VMM", vm_status_is_alive(s) ? s->vmm_pid : 0, "");
	line_number("vsockd", vm_status_is_alive(s) ? s->vsockd_pid : 0, "");
	line_number("replaced", s->vsockd_replaced, " times (vsockd)");
	line("stopped now", s->stopped);
	line_number("dropped", s->console_dropped_bytes, " bytes of console");
}

static int run_status(int argc, char **argv)
{
	struct vm_status s = { 0 };
	int r = look(argv[0], &s);

	if (r == 0 && arg_json)
		cli_print_json(vm_status_to_json(&s));
	else if (r == 0)
		print(&s);
	vm_status_finish(&s);
	return r;
}

static int run_inspect(int argc, char **argv)
{
	CLEANUP_CLOSE int vm = -EBADF;
	CLEANUP_FREE char *reason = NULL;
	struct vm_status status = { 0 };
	struct vm_spec spec = { 0 };
	struct json_object *obj;
	int r = look(argv[0], &status);

	if (r)
		return r;
	vm = vm_dirs_open_vm(cli_dirs(), argv[0], false);
	r = vm < 0 ? vm : vm_spec_read(vm, &spec, &reason);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, reason ? reason : strerror(-r), NULL,
			"%s's specification cannot be read", argv[0]);
	obj = json_object_new_object();
	json_object_object_add(obj, "spec", vm_spec_to_json(&spec));
	json_object_object_add(obj, "status", vm_status_to_json(&status));
	cli_print_json(obj);
	vm_spec_finish(&spec);
	vm_status_finish(&status);
	return 0;
}

const struct verb verb_status = {
	.name = "status",
	.arguments = "[--json] NAME",
	.summary = "show what a VM is doing, or how it ended",
	.options = options,
	.min = 1,
	.max = 1,
	.run = run_status,
};

const struct verb verb_inspect = {
	.name = "inspect",
	.arguments = "NAME",
	.summary = "show a VM's specification and status as JSON",
	.min = 1,
	.max = 1,
	.run = run_inspect,
};
