#include <errno.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "json-codec.h"
#include "session-link.h"
#include "session.h"
#include "str.h"
#include "verb-list.h"

static const char *arg_user, *arg_workdir;
static char **arg_env;
static bool arg_tty, arg_interactive;

static const struct option_def options[] = {
	{ "tty", 't', NULL, OPTION_FLAG, &arg_tty, "give CMD a terminal" },
	{ "interactive", 'i', NULL, OPTION_FLAG, &arg_interactive,
		"pass stdin (without a terminal it is passed anyway)" },
	{ "env", 'e', "NAME=VALUE", OPTION_STRV, &arg_env, "environment of CMD" },
	{ "workdir", 'w', "DIR", OPTION_STRING, &arg_workdir, "working directory of CMD" },
	{ "user", 'u', "USER[:GROUP]", OPTION_STRING, &arg_user, "user of CMD in the guest" },
	{ 0 },
};

static const struct option_def shell_options[] = {
	{ "env", 'e', "NAME=VALUE", OPTION_STRV, &arg_env, "environment of the shell" },
	{ "workdir", 'w', "DIR", OPTION_STRING, &arg_workdir, "its working directory" },
	{ "user", 'u', "USER[:GROUP]", OPTION_STRING, &arg_user, "its user in the guest" },
	{ 0 },
};

static int exec_in(const char *name, const char *const *command, bool tty)
{
	struct session_command c = { .vm_name = name,
		.argv = command,
		.env = (const char *const *)arg_env,
		.user = arg_user,
		.workdir = arg_workdir,
		.tty = tty,
		.stdin_open = arg_interactive || tty || !isatty(STDIN_FILENO) };
	struct session_result result;
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	CLEANUP_CLOSE int agent = -EBADF;

	if (cli_call(name, "io.uvms.VM.OpenAgent", NULL, &reply, &agent) != 0 || agent < 0)
		return UVMS_EXIT_UVMS;
	session_run_consume(TAKE_FD(agent), session_link_version(reply), &c, &result);
	return session_report(name, &result);
}

static int run_exec(int argc, char **argv)
{
	return exec_in(argv[0], (const char *const *)argv + 1, arg_tty);
}

static int run_shell(int argc, char **argv)
{
	static const char *const command[] = { "/bin/sh", "-c",
		"if command -v bash >/dev/null; then exec bash -l; else exec sh -l; fi", NULL };

	return exec_in(argv[0], command, isatty(STDIN_FILENO));
}

const struct verb verb_exec = {
	.name = "exec",
	.arguments = "[OPTIONS] NAME [--] CMD ARG...",
	.summary = "run a command in a running VM",
	.description = "stdin, stdout, stderr, signals and the window size pass; the exit status "
		       "is CMD's,\n"
		       "125 when uvms failed or the guest was lost, 126 and 127 as in a shell.",
	.options = options,
	.min = 2,
	.max = -1,
	.has_command = true,
	.usage_exit = UVMS_EXIT_UVMS,
	.run = run_exec,
};

const struct verb verb_shell = {
	.name = "shell",
	.arguments = "[OPTIONS] NAME",
	.summary = "open a shell in a running VM",
	.options = shell_options,
	.min = 1,
	.max = 1,
	.usage_exit = UVMS_EXIT_UVMS,
	.run = run_shell,
};
