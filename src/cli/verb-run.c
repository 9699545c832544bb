#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-client.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "path.h"
#include "run-image.h"
#include "run-input.h"
#include "session-link.h"
#include "session.h"
#include "spawn.h"
#include "str.h"
#include "verb-list.h"
#include "vm-event.h"
#include "vm-lease.h"
#include "vm-name.h"
#include "vm-spec.h"
#include "vm-status.h"

#define STOPPED_USEC (UINT64_C(30) * 1000000) /* for the end of a VM whose command was lost */

static const char *arg_name, *arg_workdir, *arg_user, *arg_backend, *arg_accel, *arg_kernel,
	*arg_status_file, *arg_cpu_model, *arg_vsock;
static const char *arg_net;
static char **arg_connects, **arg_accepts;
static char **arg_env, **arg_env_files, **arg_credentials, **arg_publish, **arg_volumes;
static uint64_t arg_memory = VM_MEMORY_DEFAULT_BYTES, arg_memory_max, arg_root_size,
		arg_start_timeout, arg_stop_timeout;
static uint32_t arg_cpus = 1, arg_cpus_max, arg_slots = UINT32_MAX;
static const char *arg_entrypoint;
static bool arg_init;
static bool arg_tty, arg_interactive, arg_rm, arg_detach, arg_dry_run, arg_quiet, arg_getty;

static const struct option_def options[] = {
	{ "name", 0, "NAME", OPTION_STRING, &arg_name, "the VM's name; it stays known until rm" },
	{ "rm", 0, NULL, OPTION_FLAG, &arg_rm, "forget a named VM when it stops" },
	{ "detach", 'd', NULL, OPTION_FLAG, &arg_detach, "return when the guest is ready" },
	{ "tty", 't', NULL, OPTION_FLAG, &arg_tty, "give CMD a terminal" },
	{ "interactive", 'i', NULL, OPTION_FLAG, &arg_interactive,
		"pass stdin (without a terminal it is passed anyway)" },
	{ "cpus", 0, "N", OPTION_COUNT, &arg_cpus, "virtual CPUs, 1" },
	{ "memory", 'm', "SIZE", OPTION_SIZE, &arg_memory, "guest memory, 512M" },
	{ "max-cpus", 0, "N", OPTION_COUNT, &arg_cpus_max, "most that uvms set may give" },
	{ "max-memory", 0, "SIZE", OPTION_SIZE, &arg_memory_max,
		"the same of memory; in steps of 128M above --memory" },
	{ "root-size", 0, "SIZE", OPTION_SIZE, &arg_root_size,
		"most that the root overlay may hold; half of the memory" },
	{ "env", 'e', "NAME=VALUE", OPTION_STRV, &arg_env, "environment of CMD" },
	{ "env-file", 0, "FILE", OPTION_STRV, &arg_env_files,
		"the same from FILE, one NAME=VALUE a line" },
	{ "credential", 0, "NAME=FILE", OPTION_STRV, &arg_credentials,
		"a secret file for the guest, in $CREDENTIALS_DIRECTORY" },
	{ "net", 0, "none|user", OPTION_STRING, &arg_net, "the guest's network" },
	{ "publish", 'p', "[ADDR:]HOST:GUEST[/udp]", OPTION_STRV, &arg_publish,
		"a port of the host that leads into the guest; implies --net=user" },
	{ "connect", 0, "PORT:VM:PORT", OPTION_STRV, &arg_connects,
		"let the guest call a port of another VM, as one of the host (CID 2)" },
	{ "accept", 0, "PORT[:VM]", OPTION_STRV, &arg_accepts,
		"let other VMs call a port of the guest" },
	{ "volume", 'v', "NAME:PATH[:SIZE]", OPTION_STRV, &arg_volumes,
		"mount a volume at PATH; it is made when there is none" },
	{ "entrypoint", 0, "PROGRAM", OPTION_STRING, &arg_entrypoint,
		"instead of the image's entry point; '' for none" },
	{ "init", 0, NULL, OPTION_FLAG, &arg_init,
		"boot the image's own init although it names a command" },
	{ "workdir", 'w', "DIR", OPTION_STRING, &arg_workdir, "working directory of CMD" },
	{ "user", 'u', "USER[:GROUP]", OPTION_STRING, &arg_user, "user of CMD in the guest" },
	{ "kernel", 0, "NAME", OPTION_STRING, &arg_kernel, "a kernel of uvms kernel ls" },
	{ "backend", 0, "auto|ch|qemu|null", OPTION_STRING, &arg_backend, "what runs the VM" },
	{ "accel", 0, "auto|kvm|tcg", OPTION_STRING, &arg_accel, "KVM, or emulation" },
	{ "cpu-model", 0, "MODEL[,FEATURE]...", OPTION_STRING, &arg_cpu_model,
		"the CPU that QEMU shows the guest" },
	{ "vsock", 0, "auto|vmm|uvms", OPTION_STRING, &arg_vsock, "whose the vsock device is" },
	{ "hotplug-slots", 0, "N", OPTION_COUNT, &arg_slots,
		"ports for devices added later; 4, and 0 with CMD" },
	{ "start-timeout", 0, "TIME", OPTION_DURATION, &arg_start_timeout,
		"most that the guest may take to be ready, 180s" },
	{ "stop-timeout", 0, "TIME", OPTION_DURATION, &arg_stop_timeout,
		"most that the guest may take to power off, 90s" },
	{ "getty", 0, NULL, OPTION_FLAG, &arg_getty, "let systemd offer a login on the console" },
	{ "status-file", 0, "FILE", OPTION_STRING, &arg_status_file,
		"write {source, code} of the end as JSON" },
	{ "dry-run", 0, NULL, OPTION_FLAG, &arg_dry_run, "print the plan, do nothing" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not print the name of a detached VM" },
	{ 0 },
};

static int copy_strv(char ***to, char **from)
{
	int r = 0;

	for (; r == 0 && from && *from; from++)
		r = strv_push(to, *from);
	return r;
}

/* Files first: what stands on the command line wins. 0 or an exit code after a complaint. */
static int fill_inputs(struct vm_spec *s)
{
	int r = 0;

	for (char **f = arg_env_files; r == 0 && f && *f; f++)
		r = run_input_env_file(*f, &s->env);
	for (char **c = arg_credentials; r == 0 && c && *c; c++)
		r = run_input_credential_name(*c, &s->credentials);
	return r;
}

static int fill_devices(struct vm_spec *s)
{
	int r;

	r = str_set(&s->vsock, arg_vsock);
	r = r ? r : str_set(&s->net, arg_net ? arg_net : arg_publish ? "user" : NULL);
	r = r ? r : copy_strv(&s->publish, arg_publish);
	r = r ? r : copy_strv(&s->connects, arg_connects);
	r = r ? r : copy_strv(&s->accepts, arg_accepts);
	return r ? r : copy_strv(&s->volumes, arg_volumes);
}

/* A whole number of steps above what it begins with. */
static uint64_t most_memory(void)
{
	uint64_t steps;

	if (arg_memory_max <= arg_memory)
		return arg_memory_max;
	steps = (arg_memory_max - arg_memory + VM_MEMORY_STEP_BYTES - 1) / VM_MEMORY_STEP_BYTES;
	return arg_memory + steps * VM_MEMORY_STEP_BYTES;
}

static int fill_spec(struct vm_spec *s, const char *image, char **command)
{
	char name[VM_NAME_MAX + 1] = "uvms";
	int r = 0;

	if (!arg_name)
		vm_name_random(name);
	r |= str_set(&s->name, arg_name ? arg_name : name);
	r |= str_set(&s->image, image);
	r |= str_set(&s->workdir, arg_workdir);
	r |= str_set(&s->user, arg_user);
	r |= str_set(&s->backend, arg_backend);
	r |= str_set(&s->accel, arg_accel);
	r |= str_set(&s->cpu_model, arg_cpu_model);
	r |= str_set(&s->kernel, arg_kernel);
	r |= copy_strv(&s->command, command);
	r |= copy_strv(&s->env, arg_env);
	r |= fill_devices(s);
	s->memory_bytes = arg_memory;
	s->memory_max_bytes = most_memory();
	s->cpus_max = arg_cpus_max;
	s->root_bytes = arg_root_size;
	s->cpus = arg_cpus;
	if (arg_start_timeout)
		s->start_timeout_usec = arg_start_timeout;
	if (arg_stop_timeout)
		s->stop_timeout_usec = arg_stop_timeout;
	s->keep = arg_name && !arg_rm;
	s->getty = arg_getty;
	if (r == 0)
		r = run_image_apply(s,
			&(struct run_image_wish){ .entrypoint = arg_entrypoint, .init = arg_init });
	s->hotplug_slots = arg_slots != UINT32_MAX ? arg_slots : s->command ? 0 : 4;
	s->attached = s->command && !arg_detach;
	return r < 0 ? -ENOMEM : 0;
}

static int fill_vm(int vm, const struct vm_spec *s)
{
	int r = vm_spec_write(vm, s);

	return r < 0 ? r : run_input_keep_credentials(vm, arg_credentials);
}

/* Makes the VM known, whole or not at all; nobody else of that name may be. */
static int make_vm(const struct vm_spec *s)
{
	char hidden[VM_DIRS_HIDDEN_MAX];
	CLEANUP_CLOSE int vm = vm_dirs_new_vm(cli_dirs(), hidden);
	int r = vm < 0 ? vm : fill_vm(vm, s);

	if (r == 0)
		r = vm_dirs_name_vm(cli_dirs(), hidden, s->name);
	if (r != 0 && vm >= 0)
		(void)vm_dirs_drop_hidden(cli_dirs(), hidden);
	if (r > 0)
		return r;
	if (r == -EEXIST)
		return fail(UVMS_EXIT_BUSY, NULL,
			"uvms start it, uvms rm it, or take another --name",
			"there is already a VM %s", s->name);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be made", s->name);
	return 0;
}

static int dry_run(const struct vm_spec *s)
{
	CLEANUP_FREE char *program = NULL;
	const char *const argv[] = { "uvms-supervisor", "--print-plan", s->name, NULL };
	CLEANUP_CLOSE int pidfd = -EBADF;
	struct spawn spawn = { SPAWN_DEFAULTS, .argv = argv, .stdout_fd = STDOUT_FILENO,
		.stderr_fd = STDERR_FILENO };
	int r;

	r = path_find_helper("uvms-supervisor", &program);
	spawn.path = program;
	if (r == 0)
		r = spawn_process(&spawn, NULL, &pidfd);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "the plan cannot be made");
	return spawn_wait(pidfd) == 0 ? 0 : UVMS_EXIT_FAILED;
}

static int run_detached(const struct vm_spec *s)
{
	CLEANUP_CLOSE int client = -EBADF;
	int r;

	r = cli_launch(s->name, false, &client);
	if (r == 0)
		r = cli_wait_ready(s->name, client);
	if (r == 0 && !arg_quiet)
		puts(s->name);
	return r;
}

static void write_status_file(const struct session_result *result)
{
	static const char *const sources[] = {
		[SESSION_CMD] = "cmd",
		[SESSION_SIGNAL] = "signal",
		[SESSION_UVMS] = "uvms",
		[SESSION_LOST] = "lost",
	};
	const char *base = arg_status_file ? strrchr(arg_status_file, '/') : NULL;
	CLEANUP_FREE char *parent = NULL;
	CLEANUP_CLOSE int dir = -EBADF;
	char text[64];
	int n, r;

	if (!arg_status_file)
		return;
	parent =
		base ? strndup(arg_status_file, (size_t)(base - arg_status_file + 1)) : strdup(".");
	base = base ? base + 1 : arg_status_file;
	dir = parent ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	n = snprintf(text, sizeof text, "{\"source\":\"%s\",\"code\":%d}\n",
		sources[result->source], result->code);
	r = dir < 0 ? -errno : file_write_at(dir, base, text, (size_t)n, 0644);
	if (r < 0)
		fail(0, strerror(-r), NULL, "the status file %s cannot be written",
			arg_status_file);
}

/* The agent of the VM that is being started, or the complaint. */
static int open_agent(const struct vm_spec *s, int client, uint32_t *ret_version, int *ret_fd)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct json_object *p = json_object_new_object();
	struct control_failure f = { 0 };
	int r;

	json_object_object_add(p, "wait", json_object_new_boolean(true));
	r = control_client_call(client, "io.uvms.VM.OpenAgent", p, UINT64_MAX, &reply, ret_fd, &f);
	if (r < 0)
		fail_call(s->name, r, &f);
	else
		*ret_version = session_link_version(reply);
	control_failure_finish(&f);
	return r;
}

/*
 * The supervisor knows better than the connection why it ended. False: the VM is still there; it ends
 * with CLIENT.
 */
static bool explain_loss(const char *name, int client, struct session_result *result)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct json_object *p = json_object_new_object();
	struct vm_status s = { 0 };
	int r;

	json_object_object_add(p, "for", json_object_new_string("stopped"));
	r = control_client_call(client, "io.uvms.VM.Wait", p, STOPPED_USEC, &reply, NULL, NULL);
	if (r == 0 && cli_reply_status(reply, &s))
		snprintf(result->text, sizeof result->text, "the VM %s: %s",
			str_or(s.outcome, "ended"), str_or(s.cause, "?"));
	vm_status_finish(&s);
	return r != -ETIMEDOUT;
}

static int run_attached(const struct vm_spec *s)
{
	struct session_result result = { .source = SESSION_UVMS, .code = UVMS_EXIT_UVMS };
	CLEANUP_CLOSE int client = -EBADF, agent = -EBADF;
	uint32_t version = 0;
	bool wait = true;
	int code;

	if (cli_launch(s->name, true, &client) != 0 ||
		open_agent(s, client, &version, &agent) < 0) {
		write_status_file(&result);
		if (client >= 0)
			control_client_wait_end(client);
		return UVMS_EXIT_UVMS;
	}
	struct session_command c = { .vm_name = s->name,
		.argv = (const char *const *)s->command,
		.env = (const char *const *)s->env,
		.user = s->user,
		.workdir = s->workdir,
		.tty = arg_tty,
		.stdin_open = arg_interactive || arg_tty || !isatty(STDIN_FILENO),
		.is_main = true };
	session_run_consume(TAKE_FD(agent), version, &c, &result);
	if (result.source == SESSION_LOST)
		wait = !result.abandoned && explain_loss(s->name, client, &result);
	code = session_report(s->name, &result);
	write_status_file(&result);
	/* not before the last of it is gone, unless nobody knows when that will be */
	if (wait)
		control_client_wait_end(client);
	return code;
}

/* The image's own init in the foreground: its console, until it ends. */
static int run_console(const struct vm_spec *s)
{
	CLEANUP_CLOSE int client = -EBADF;
	int r;

	r = cli_launch(s->name, true, &client);
	if (r == 0)
		r = cli_wait_ready(s->name, client);
	if (r != 0)
		return r;
	fail_say("%s is ready; this is its console, ^] leaves and stops it", s->name);
	r = cli_console(s->name);
	close(TAKE_FD(client));
	return r;
}

static int run(int argc, char **argv)
{
	CLEANUP(vm_spec_finish) struct vm_spec spec = { 0 };
	CLEANUP_FREE char *reason = NULL;
	bool has_command = argc > 1;
	int r;

	argv[argc] = NULL;
	if (arg_rm && !arg_name)
		arg_rm = false;
	vm_spec_init(&spec);
	r = fill_inputs(&spec);
	if (r > 0)
		return has_command ? UVMS_EXIT_UVMS : r;
	r = fill_spec(&spec, argv[0], argv + 1);
	has_command = spec.command;
	if (r < 0) /* what is missing in it would be taken for what was not asked for */
		return fail(has_command ? UVMS_EXIT_UVMS : UVMS_EXIT_FAILED, strerror(-r), NULL,
			"the VM cannot be described");
	if (vm_spec_check(&spec, &reason) < 0)
		return fail(has_command ? UVMS_EXIT_UVMS : UVMS_EXIT_USAGE, NULL, "uvms help run",
			"%s", str_or(reason, "out of memory"));
	r = make_vm(&spec);
	if (r != 0)
		return has_command ? UVMS_EXIT_UVMS : r;
	if (arg_dry_run) {
		r = dry_run(&spec);
		(void)vm_lease_drop(cli_dirs(), spec.name);
		return r;
	}
	(void)vm_event_append(
		cli_dirs(), &(struct vm_event){ .vm = spec.name, .event = "created" });
	r = arg_detach    ? run_detached(&spec)
	    : has_command ? run_attached(&spec)
			  : run_console(&spec);
	return r;
}

const struct verb verb_run = {
	.name = "run",
	.arguments = "[OPTIONS] IMAGE [-- CMD ARG...]",
	.summary = "make a VM from an image and start it",
	.description =
		"With CMD: runs it in a fresh VM with the caller's streams and signals; the exit "
		"status is CMD's.\n"
		"Without: boots the image's own init; -d returns when its start-up has ended.\n"
		"A VM with --name stays known after it stopped, until `uvms rm`; an unnamed or "
		"--rm one goes.",
	.options = options,
	.min = 1,
	.max = -1,
	.has_command = true,
	.usage_exit = UVMS_EXIT_UVMS,
	.run = run,
};
