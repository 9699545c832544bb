#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-client.h"
#include "control-error.h"
#include "fail.h"
#include "json-codec.h"
#include "runtime-dir.h"
#include "str.h"
#include "verb-list.h"
#include "vm-status.h"

/* A supervisor kills its VMM within 5 s, or has given up by then. */
#define FORCE_USEC (UINT64_C(10) * 1000000)

static uint64_t arg_timeout;
static bool arg_force, arg_quiet, arg_all;

static const struct option_def options[] = {
	{ "timeout", 0, "TIME", OPTION_DURATION, &arg_timeout,
		"how long the guest may take before it is pressed harder" },
	{ "force", 'f', NULL, OPTION_FLAG, &arg_force, "do not ask the guest: kill" },
	{ "all", 'a', NULL, OPTION_FLAG, &arg_all, "every VM that runs, at the same time" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not say how it ended" },
	{ 0 },
};

static const struct option_def restart_options[] = {
	{ "timeout", 0, "TIME", OPTION_DURATION, &arg_timeout,
		"how long the guest may take before it is pressed harder" },
	{ "force", 'f', NULL, OPTION_FLAG, &arg_force, "do not ask the guest: kill" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not say how it ended" },
	{ 0 },
};

static const struct option_def kill_options[] = {
	{ "all", 'a', NULL, OPTION_FLAG, &arg_all, "every VM that runs" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not say how it ended" },
	{ 0 },
};

static int not_running(const char *name)
{
	struct vm_status s = { 0 };
	int r;

	(void)runtime_dir_sweep(cli_dirs(), name);
	r = vm_status_look(cli_dirs(), name, &s);
	vm_status_finish(&s);
	if (r == 0)
		return 0; /* what was asked for is so */
	return cli_no_vm(name);
}

static struct json_object *stop_parameters(uint64_t timeout_usec, bool force)
{
	struct json_object *p = json_object_new_object();

	if (timeout_usec)
		json_object_object_add(p, "timeout_usec", json_object_new_uint64(timeout_usec));
	json_object_object_add(p, "force", json_object_new_boolean(force));
	return p;
}

int cli_stop(const char *name, uint64_t timeout_usec, bool force, bool quiet)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct control_failure f = { 0 };
	CLEANUP_CLOSE int fd = -EBADF;
	struct vm_status s = { 0 };
	int r = cli_check_name(name);

	if (r)
		return r;
	fd = cli_connect(name);
	if (fd < 0)
		return not_running(name);
	r = control_client_call(fd, "io.uvms.VM.Stop", stop_parameters(timeout_usec, force),
		force ? FORCE_USEC : UINT64_MAX, &reply, NULL, &f);
	if (r == -ETIMEDOUT && force) {
		r = cli_end_supervisor(name, fd);
		control_failure_finish(&f);
		return r < 0 ? fail_call(name, r, &f) : 0;
	}
	if (r < 0)
		r = fail_call(name, r, &f);
	else if (cli_reply_status(reply, &s) && !quiet)
		printf("%s: stopped (%s: %s)\n", name, str_or(s.outcome, "?"),
			str_or(s.cause, "?"));
	if (r == 0)
		control_client_wait_end(fd);
	control_failure_finish(&f);
	vm_status_finish(&s);
	return r;
}

static int collect_running(const char *name, void *userdata)
{
	struct vm_status s = { 0 };
	int r = 0;

	(void)runtime_dir_sweep(cli_dirs(), name);
	if (vm_status_look(cli_dirs(), name, &s) == 0 && vm_status_is_alive(&s))
		r = strv_push(userdata, name);
	vm_status_finish(&s);
	return r;
}

/* Side by side: one that takes its whole time-out must not keep the others. */
static pid_t stop_in_child(const char *name, bool force)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		int r = cli_stop(name, arg_timeout, force, arg_quiet);

		fflush(stdout);
		_exit(r);
	}
	return pid;
}

static int stop_all(bool force)
{
	CLEANUP(strv_freep) char **names = NULL;
	int worst = 0, status;

	if (cli_each_vm(collect_running, &names) < 0)
		return fail(UVMS_EXIT_FAILED, NULL, NULL, "the VMs cannot be listed");
	for (char **n = names; n && *n; n++) {
		if (stop_in_child(*n, force) < 0)
			worst = fail(UVMS_EXIT_FAILED, strerror(errno), NULL,
				"%s cannot be stopped now", *n);
	}
	while (wait(&status) > 0) {
		int r = WIFEXITED(status) ? WEXITSTATUS(status) : UVMS_EXIT_FAILED;

		worst = worst ? worst : r;
	}
	return worst;
}

static int stop_each(int argc, char **argv, bool force)
{
	int worst = 0;

	if (arg_all != (argc == 0))
		return fail(UVMS_EXIT_USAGE, NULL, "NAME..., or --all", "%s",
			argc ? "--all goes with no name" : "no VM is named");
	if (arg_all)
		return stop_all(force);
	for (int i = 0; i < argc; i++) {
		int r = cli_stop(argv[i], arg_timeout, force, arg_quiet);

		worst = worst ? worst : r;
	}
	return worst;
}

static int run_stop(int argc, char **argv)
{
	return stop_each(argc, argv, arg_force);
}

static int run_kill(int argc, char **argv)
{
	return stop_each(argc, argv, true);
}

static int run_restart(int argc, char **argv)
{
	int worst = 0;

	for (int i = 0; i < argc; i++) {
		int r = cli_stop(argv[i], arg_timeout, arg_force, true);

		if (r == 0)
			r = cli_start(argv[i]);
		worst = worst ? worst : r;
	}
	return worst;
}

const struct verb verb_stop = {
	.name = "stop",
	.arguments = "[--timeout=TIME] [--force] (NAME... | --all)",
	.summary = "ask VMs to power off, and see that they do",
	.description = "The agent first, then the ACPI power button, then the VMM, then SIGKILL, "
		       "each with\n"
		       "its deadline; the answer says which it was.",
	.options = options,
	.min = 0,
	.max = -1,
	.run = run_stop,
};

const struct verb verb_kill = {
	.name = "kill",
	.arguments = "[-q] (NAME... | --all)",
	.summary = "end VMs at once, without asking",
	.options = kill_options,
	.min = 0,
	.max = -1,
	.run = run_kill,
};

const struct verb verb_restart = {
	.name = "restart",
	.arguments = "[--timeout=TIME] [--force] NAME...",
	.summary = "stop VMs and start them again",
	.options = restart_options,
	.min = 1,
	.max = -1,
	.run = run_restart,
};
