#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "control-client.h"
#include "control-error.h"
#include "fail.h"
#include "json-codec.h"
#include "str.h"
#include "verb-list.h"
#include "vm-status.h"

static const char *arg_for = "stopped";
static uint64_t arg_timeout = UINT64_MAX;

static const struct option_def options[] = {
	{ "for", 0, "ready|stopped", OPTION_STRING, &arg_for, "what to wait for; stopped" },
	{ "timeout", 0, "TIME", OPTION_DURATION, &arg_timeout,
		"give up after that time (exit status 5)" },
	{ 0 },
};

static int already(const char *name)
{
	struct vm_status s = { 0 };
	int r = vm_status_look(cli_dirs(), name, &s);

	vm_status_finish(&s);
	if (r == 0 && str_eq(arg_for, "stopped"))
		return 0;
	if (r == 0)
		return fail(UVMS_EXIT_FAILED, NULL, "uvms start it", "%s does not run", name);
	return cli_no_vm(name);
}

static int run(int argc, char **argv)
{
	struct control_failure f = { 0 };
	CLEANUP_CLOSE int fd = -EBADF;
	struct json_object *p;
	int r;

	if (!str_eq(arg_for, "ready") && !str_eq(arg_for, "stopped"))
		return fail(
			UVMS_EXIT_USAGE, NULL, NULL, "--for=%s: it is ready or stopped", arg_for);
	r = cli_check_name(argv[0]);
	if (r)
		return r;
	fd = cli_connect(argv[0]);
	if (fd < 0)
		return already(argv[0]);
	p = json_object_new_object();
	json_object_object_add(p, "for", json_object_new_string(arg_for));
	r = control_client_call(fd, "io.uvms.VM.Wait", p, arg_timeout, NULL, NULL, &f);
	if (r == -ETIMEDOUT && !f.message)
		r = fail(UVMS_EXIT_TIMEOUT, NULL, NULL, "%s is not %s yet", argv[0], arg_for);
	else if (r == -ECONNRESET && str_eq(arg_for, "stopped"))
		r = 0; /* its supervisor was killed: gone it is */
	else if (r < 0)
		r = fail_call(argv[0], r, &f);
	control_failure_finish(&f);
	return r;
}

const struct verb verb_wait = {
	.name = "wait",
	.arguments = "[--for=ready|stopped] [--timeout=TIME] NAME",
	.summary = "wait until a VM is ready, or gone",
	.options = options,
	.min = 1,
	.max = 1,
	.run = run,
};
