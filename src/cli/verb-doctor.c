#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "doctor.h"
#include "fail.h"
#include "verb-list.h"

static bool arg_quiet, arg_json;

static const struct option_def options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "only what is not ok" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "{result, checks} as JSON" },
	{ 0 },
};

static int examine(const struct doctor_host *host, struct doctor_report *report)
{
	int r;

	r = doctor_run(doctor_vmm_checks, host, report);
	if (r == 0)
		r = doctor_run(doctor_host_checks, host, report);
	if (r == 0)
		r = doctor_run(doctor_image_checks, host, report);
	return r;
}

static void say(const struct doctor_report *report)
{
	static const char *const verdicts[] = {
		[DOCTOR_OK] = "VMs can be run.",
		[DOCTOR_WARNING] = "VMs can be run; see the warnings.",
		[DOCTOR_MISSING] = "No VM can be run: something is missing.",
	};

	doctor_print(report, arg_quiet);
	if (!arg_quiet)
		printf("\n%s\n", verdicts[doctor_verdict(report)]);
}

static int run(int argc, char **argv)
{
	CLEANUP(doctor_report_finish) struct doctor_report report = { 0 };
	CLEANUP(vm_dirs_finish) struct vm_dirs dirs = { 0 };
	struct doctor_host host = { .is_root = geteuid() == 0 };
	struct json_object *obj;
	int r;

	host.dirs_error = vm_dirs_init(&dirs);
	host.dirs = host.dirs_error == 0 ? &dirs : NULL;
	r = examine(&host, &report);
	obj = r == 0 && arg_json ? doctor_to_json(&report) : NULL;
	if (r < 0 || (arg_json && !obj))
		return fail(
			UVMS_EXIT_FAILED, strerror(ENOMEM), NULL, "this host cannot be examined");
	if (obj)
		cli_print_json(obj);
	else
		say(&report);
	return doctor_verdict(&report) == DOCTOR_MISSING ? UVMS_EXIT_FAILED : 0;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.arguments = "[-q] [--json]",
	.summary = "check what this host can do, with the remedy for what it cannot",
	.options = options,
	.run = run,
};
