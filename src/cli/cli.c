#include "cli.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-client.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "lease.h"
#include "path.h"
#include "pidfd.h"
#include "runtime-dir.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "vm-name.h"
#include "vm-status.h"

#define STOPPED_USEC (UINT64_C(5) * 1000000)

const struct vm_dirs *cli_dirs(void)
{
	static struct vm_dirs dirs;
	int r;

	if (dirs.state)
		return &dirs;
	r = vm_dirs_init(&dirs);
	if (r == 0)
		r = vm_dirs_hold(&dirs);
	if (r < 0)
		exit(fail(UVMS_EXIT_FAILED, strerror(-r),
			r == -EPERM ? "the directory must belong to you and be closed to others"
				    : "set UVMS_STATE_DIR and UVMS_RUNTIME_DIR to places where you "
				      "may write",
			"the state and runtime directories cannot be used"));
	return &dirs;
}

int cli_check_name(const char *name)
{
	const char *reason;

	if (vm_name_check(name, &reason) == 0)
		return 0;
	return fail(UVMS_EXIT_USAGE, reason, NULL, "\"%s\" cannot be a VM's name", name);
}

/* Of cli_launch(): the peer of a socket pair is who made it, us. */
static pid_t launched;

static pid_t supervisor_of(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return 0;
	return peer.pid == getpid() ? launched : peer.pid;
}

/* 'T' of proc(5): stopped by a signal, not by a debugger. */
static bool is_stopped(pid_t pid)
{
	CLEANUP_FREE char *text = NULL;
	char path[32], *end;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	if (file_read_at(AT_FDCWD, path, 4096, &text, NULL) < 0)
		return false;
	end = strrchr(text, ')');
	return end && str_has_prefix(end, ") T");
}

static int look_after(int fd, uint64_t waited_usec)
{
	pid_t pid = supervisor_of(fd);
	CLEANUP_CLOSE int pidfd = pid > 0 && is_stopped(pid) ? pidfd_open_pid(pid) : -EBADF;

	if (pidfd < 0)
		return 0;
	if (pidfd_signal(pidfd, SIGCONT) == 0)
		fail_say("the supervisor (process %d) was stopped by a signal: it goes on", pid);
	else if (waited_usec > STOPPED_USEC)
		return -ETIMEDOUT;
	return 0;
}

/* -ENOENT: nobody listens; *RET_HELD says whether the name is held all the same. */
static int connect_once(const char *name, bool *ret_held)
{
	CLEANUP_CLOSE int runtime = vm_dirs_open_runtime(cli_dirs(), name, false);
	int fd;

	*ret_held = false;
	if (runtime < 0)
		return runtime;
	fd = control_client_connect(runtime);
	if (fd == -ENOENT)
		*ret_held = lease_is_held_at(runtime, "lock") > 0;
	return fd;
}

/* Between taking its name and listening, and after its last word, a supervisor has no socket. */
int cli_connect(const char *name)
{
	struct timespec nap = { 0, 10 * 1000 * 1000 };
	bool held = true;
	int fd = -ENOENT;

	control_client_look_after(look_after);
	for (int i = 0; i < 300 && fd == -ENOENT && held; i++) {
		if (i > 0)
			nanosleep(&nap, NULL);
		fd = connect_once(name, &held);
	}
	return fd;
}

int cli_end_supervisor(const char *name, int fd)
{
	pid_t pid = supervisor_of(fd);
	CLEANUP_CLOSE int pidfd = pid > 0 ? pidfd_open_pid(pid) : -EBADF;
	struct timespec nap = { 0, 10 * 1000 * 1000 };
	int r = pidfd < 0 ? -ESRCH : pidfd_signal(pidfd, SIGKILL);

	if (r < 0)
		return r;
	fail_say("the supervisor of %s (process %d) did not answer: it is killed, and all with it",
		name, pid);
	for (int i = 0; i < 500 && (r = runtime_dir_sweep(cli_dirs(), name)) == -EBUSY; i++)
		nanosleep(&nap, NULL);
	return r < 0 ? r : 0;
}

struct nearest {
	const char *name; /* borrowed */
	char best[VM_NAME_MAX + 1];
	size_t least;
};

static int nearest_look(const char *name, void *userdata)
{
	struct nearest *n = userdata;
	size_t d = str_distance(name, n->name);

	if (d < n->least) {
		n->least = d;
		snprintf(n->best, sizeof n->best, "%s", name);
	}
	return 0;
}

int cli_no_vm(const char *name)
{
	struct nearest n = { .name = name, .least = 3 };

	(void)cli_each_vm(nearest_look, &n);
	if (n.best[0])
		return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms ls -a shows what there is",
			"there is no VM %s; did you mean %s?", name, n.best);
	return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms ls -a shows what there is",
		"there is no VM %s", name);
}

int cli_not_running(const char *name)
{
	struct vm_status s = { 0 };
	CLEANUP_FREE char *next = NULL;

	(void)runtime_dir_sweep(cli_dirs(), name);
	if (vm_status_look(cli_dirs(), name, &s) < 0)
		return cli_no_vm(name);
	vm_status_finish(&s);
	next = str_printf("uvms start %s", name);
	return fail(UVMS_EXIT_NOT_FOUND, NULL, str_or(next, "uvms start"), "%s does not run", name);
}

int cli_call(const char *name, const char *method, struct json_object *parameters,
	struct json_object **ret_reply, int *ret_fd)
{
	struct control_failure f = { 0 };
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	r = cli_check_name(name);
	if (r) {
		json_object_put(parameters);
		return r;
	}
	fd = cli_connect(name);
	if (fd < 0) {
		json_object_put(parameters);
		return fd == -ENOENT ? cli_not_running(name) : fail_call(name, fd, &f);
	}
	r = control_client_call(fd, method, parameters, UINT64_MAX, ret_reply, ret_fd, &f);
	if (r < 0)
		r = fail_call(name, r, &f);
	control_failure_finish(&f);
	return r;
}

static int launch(const char *name, const char *const *argv, int *ret_client_fd)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_CLOSE int ours = -EBADF, theirs = -EBADF, pidfd = -EBADF;
	int pair[2], r;

	if (path_find_helper("uvms-supervisor", &program) < 0)
		return fail(UVMS_EXIT_FAILED,
			"uvms-supervisor is neither beside uvms nor installed",
			"build or install uvms whole", "%s cannot be started", name);
	r = sockun_pair(SOCK_STREAM, pair);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be started", name);
	ours = pair[0];
	theirs = pair[1];
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program, .argv = argv, .fds = &theirs,
		.n_fds = 1, .stderr_fd = STDERR_FILENO };
	r = spawn_process(&spawn, &launched, &pidfd);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be started", name);
	control_client_look_after(look_after);
	*ret_client_fd = TAKE_FD(ours);
	return 0;
}

int cli_launch(const char *name, bool owned, int *ret_client_fd)
{
	const char *const argv[] = { "uvms-supervisor", "--client-fd", "3",
		owned ? "--owned" : name, owned ? name : NULL, NULL };

	return launch(name, argv, ret_client_fd);
}

int cli_launch_from(const char *name, const char *snapshot, int *ret_client_fd)
{
	const char *const argv[] = { "uvms-supervisor", "--client-fd", "3", "--restore", snapshot,
		name, NULL };

	return launch(name, argv, ret_client_fd);
}

bool cli_reply_status(struct json_object *reply, struct vm_status *ret)
{
	struct json_object *v;

	return reply && json_object_object_get_ex(reply, "status", &v) &&
	       vm_status_from_json(v, ret) == 0;
}

int cli_wait_ready(const char *name, int client_fd)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct json_object *p = json_object_new_object();
	struct control_failure f = { 0 };
	struct vm_status s = { 0 };
	int r;

	json_object_object_add(p, "for", json_object_new_string("ready"));
	r = control_client_call(client_fd, "io.uvms.VM.Wait", p, UINT64_MAX, &reply, NULL, &f);
	if (r < 0)
		r = fail_call(name, r, &f);
	else if (cli_reply_status(reply, &s) && str_eq(s.ready, "degraded"))
		fail(0, s.failed_units, "uvms exec NAME systemctl status UNIT",
			"warning: %s is ready, but degraded", name);
	control_failure_finish(&f);
	vm_status_finish(&s);
	return r;
}

/* The names in the directory VMS, sorted. */
static int is_name(const struct dirent *e)
{
	return vm_name_check(e->d_name, NULL) == 0;
}

static int compare_names(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

int cli_each_vm(int (*fn)(const char *name, void *userdata), void *userdata)
{
	CLEANUP_CLOSE int vms = vm_dirs_open_vms(cli_dirs());
	struct dirent **found = NULL;
	int n = vms < 0 ? 0 : scandirat(vms, ".", &found, is_name, compare_names), r = 0;

	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = fn(found[i]->d_name, userdata);
		free(found[i]);
	}
	free(found);
	return r;
}

void cli_print_json(struct json_object *obj)
{
	puts(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
							 JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(obj);
}
