#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>

#include "cleanup.h"
#include "cli.h"
#include "control-client.h"
#include "control-error.h"
#include "fail.h"
#include "json-codec.h"
#include "path.h"
#include "str.h"
#include "verb-list.h"

#define REFRESH_TIMEOUT_USEC (UINT64_C(30) * 1000000)

static bool arg_all, arg_quiet;

static const struct option_def options[] = {
	{ "all", 'a', NULL, OPTION_FLAG, &arg_all, "all VMs that run" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not say what was done" },
	{ 0 },
};

struct refreshed {
	char *from, *to, *vsock;
};

static const struct json_field refreshed_fields[] = {
	JSON_FIELD(struct refreshed, from, JSON_STR, .max = 64),
	JSON_FIELD(struct refreshed, to, JSON_STR, .max = 64),
	JSON_FIELD(struct refreshed, vsock, JSON_STR, .max = 64),
};

static int refresh_failed(const char *name, int error, const struct control_failure *f)
{
	if (error == -ENOSYS)
		return fail(UVMS_EXIT_NOT_SUPPORTED,
			"it was started by a version of uvms that cannot be replaced",
			"uvms restart it when that suits you", "%s: not refreshed", name);
	if (error == -ETIMEDOUT && !f->message)
		return fail(UVMS_EXIT_TIMEOUT, NULL, "uvms status shows what it is at",
			"%s: its supervisor has not answered within 30 s", name);
	return fail_call(name, error, f);
}

static void refresh_say(const char *name, struct json_object *reply)
{
	struct refreshed d = { 0 };

	if (json_codec_decode(reply, refreshed_fields, ARRAY_SIZE(refreshed_fields), &d, NULL) == 0)
		printf("%s: refreshed (%s -> %s)%s\n", name, str_or(d.from, "?"), str_or(d.to, "?"),
			str_eq(d.vsock, "reset")  ? "; its connections were reset"
			: str_eq(d.vsock, "kept") ? "; its uvms-vsockd was not replaced"
						  : "");
	else
		printf("%s: refreshed\n", name);
	json_codec_release(refreshed_fields, ARRAY_SIZE(refreshed_fields), &d);
}

/* 0, or the exit code; -ENOENT: it does not run. */
static int refresh_one(const char *name)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct control_failure f = { 0 };
	CLEANUP_FREE char *program = NULL;
	CLEANUP_CLOSE int fd = cli_connect(name);
	struct json_object *p;
	int r;

	if (fd < 0)
		return fd == -ENOENT ? fd : fail_call(name, fd, &f);
	/* ours: an upgrade may lie in another directory than what runs (Nix) */
	p = json_object_new_object();
	if (path_find_helper("uvms-supervisor", &program) == 0)
		json_object_object_add(p, "program", json_object_new_string(program));
	r = control_client_call(
		fd, "io.uvms.VM.Refresh", p, REFRESH_TIMEOUT_USEC, &reply, NULL, &f);
	if (r < 0)
		r = refresh_failed(name, r, &f);
	else if (!arg_quiet)
		refresh_say(name, reply);
	control_failure_finish(&f);
	return r;
}

static int refresh_each(const char *name, void *userdata)
{
	int *worst = userdata, r = refresh_one(name);

	if (r != -ENOENT && *worst == 0)
		*worst = r;
	return 0;
}

static int refresh_named(const char *name)
{
	int r = cli_check_name(name);

	if (r == 0)
		r = refresh_one(name);
	return r == -ENOENT ? cli_not_running(name) : r;
}

static int run(int argc, char **argv)
{
	int worst = 0;

	if (arg_all != (argc == 0))
		return fail(UVMS_EXIT_USAGE, NULL, "uvms refresh NAME..., or uvms refresh --all",
			arg_all ? "--all and names" : "no VM is named");
	if (arg_all)
		(void)cli_each_vm(refresh_each, &worst);
	for (int i = 0; i < argc; i++) {
		int r = refresh_named(argv[i]);

		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_refresh = {
	.name = "refresh",
	.arguments = "[-q] NAME... | --all",
	.summary = "go on with the installed version of uvms, under running VMs",
	.description =
		"After an upgrade: the supervisor of each VM becomes the new program in place.\n"
		"Guests, sessions, forwards, consoles and those who wait go on.",
	.options = options,
	.min = 0,
	.max = -1,
	.run = run,
};
