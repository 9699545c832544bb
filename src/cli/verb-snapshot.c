#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
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
#include "lock.h"
#include "runtime-dir.h"
#include "snapshot-parts.h"
#include "snapshot.h"
#include "str.h"
#include "verb-list.h"
#include "vm-spec.h"
#include "vm-status.h"

static bool arg_stop;

static const struct option_def options[] = {
	{ "stop", 0, NULL, OPTION_FLAG, &arg_stop, "end the VM instead of letting it go on" },
	{ 0 },
};

/* making one */

/* What clients that were killed have left; one that lives has a lock on its own. */
static void sweep(int all)
{
	CLEANUP(strv_freep) char **names = NULL;

	if (file_list_at(all, ".", SNAPSHOTS_MAX, &names) < 0)
		return;
	for (char **n = names; n && *n; n++) {
		CLEANUP_CLOSE int dir = -EBADF;

		if (**n != '.')
			continue;
		dir = openat(all, *n, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (dir >= 0 && lock_named_take(dir) == 0)
			(void)file_remove_tree_at(all, *n);
	}
}

/* One that is new, and ours by its lock: nobody sweeps between the two. Descriptor or -errno. */
static int make_locked(int all, const char *hidden)
{
	CLEANUP_CLOSE int gate = openat(all, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), dir = -EBADF;
	int r = gate < 0 ? -errno : lock_named_wait(gate);

	if (r < 0)
		return r;
	sweep(all);
	dir = file_mkdir_at(all, hidden, 0711);
	if (dir < 0)
		return dir;
	r = lock_named_take(dir);
	return r < 0 ? r : TAKE_FD(dir);
}

/* The directory under a hidden name, with what belongs to the VM in it. Descriptor or -errno. */
static int make_hidden(int all, const char *hidden, uid_t uid)
{
	CLEANUP_CLOSE int dir = make_locked(all, hidden), vmm = -EBADF;

	if (dir < 0)
		return dir;
	vmm = file_mkdir_at(dir, "vmm", 0700);
	if (vmm < 0)
		return vmm;
	if (geteuid() == 0 && fchown(vmm, uid, uid) < 0)
		return -errno;
	return TAKE_FD(dir);
}

/* What the words of the specification meant when the VM was started, which may be another thing by now. */
static int pin(const struct vm_status *status, struct vm_spec *spec)
{
	int r = status->image_digest && status->kernel_digest ? 0 : -ENODATA;

	if (r == 0)
		r = str_set(&spec->image, status->image_digest);
	if (r == 0)
		r = str_set(&spec->kernel, status->kernel_digest);
	if (r == 0)
		r = str_set(&spec->backend, status->backend);
	if (r == 0)
		r = str_set(&spec->accel, status->accel);
	if (r == 0)
		r = str_set(&spec->vsock, status->vsock);
	return r == 0 ? 0
		      : fail(UVMS_EXIT_FAILED,
				r == -ENODATA ? "it was started by an older uvms" : strerror(-r),
				r == -ENODATA ? "restart the VM" : NULL, "no snapshot was made");
}

static int read_spec(const char *name, struct vm_spec *ret, char **ret_reason)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), name, false);

	return vm < 0 ? vm : vm_spec_read(vm, ret, ret_reason);
}

/* The VM goes on, or ends, whatever becomes of us. */
static int take(const char *vm, const char *hidden)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, "snapshot", json_object_new_string(hidden));
	json_object_object_add(p, "stop", json_object_new_boolean(arg_stop));
	return cli_call(vm, "io.uvms.VM.Snapshot", p, NULL, NULL);
}

static int begin(int dir, const struct vm_spec *spec, struct snapshot *ret)
{
	CLEANUP_FREE char *reason = NULL;
	int r = snapshot_begin(dir, spec, ret, &reason);

	return r == 0 ? 0
		      : fail(control_error_exit(r), reason ? reason : strerror(-r), NULL,
				"no snapshot was made");
}

static int complete(int all, int dir, const char *hidden, const char *name, struct snapshot *s)
{
	int r = snapshot_complete(dir, s);

	if (r == 0 && (renameat2(all, hidden, all, name, RENAME_NOREPLACE) < 0 || fsync(all) < 0))
		r = -errno;
	if (r == 0)
		return 0;
	return fail(control_error_exit(r), strerror(-r), NULL,
		"the snapshot %s cannot be completed%s", name,
		arg_stop ? ", and the VM has been ended" : "");
}

static int wait_end(const char *vm)
{
	CLEANUP_CLOSE int fd = cli_connect(vm);

	if (fd >= 0)
		control_client_wait_end(fd);
	return 0;
}

static int make(const char *vm, const char *name, const struct vm_status *status,
	const struct vm_spec *spec)
{
	CLEANUP_CLOSE int all = vm_dirs_open_state(cli_dirs(), VM_SNAPSHOTS), dir = -EBADF;
	CLEANUP_FREE char *hidden = str_printf(".%s.new", name);
	CLEANUP(snapshot_finish) struct snapshot s = { 0 };
	int r;

	if (all < 0 || !hidden)
		return fail(UVMS_EXIT_FAILED, strerror(all < 0 ? -all : ENOMEM), NULL,
			"the directory of the snapshots cannot be used");
	if (faccessat(all, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return fail(UVMS_EXIT_BUSY, NULL, "take another name",
			"there is already a snapshot %s", name);
	dir = make_hidden(all, hidden, status->uid);
	if (dir < 0)
		return fail(control_error_exit(dir),
			dir == -EBUSY ? "another uvms snapshot makes it" : strerror(-dir), NULL,
			"%s cannot be made", name);
	r = begin(dir, spec, &s);
	if (r == 0)
		r = take(vm, hidden);
	if (r == 0)
		r = complete(all, dir, hidden, name, &s);
	if (r == 0 && arg_stop)
		r = wait_end(vm);
	if (r)
		(void)file_remove_tree_at(all, hidden);
	else
		puts(name);
	return r;
}

static int run_snapshot(int argc, char **argv)
{
	CLEANUP_FREE char *reason = NULL;
	struct vm_status status = { 0 };
	struct vm_spec spec = { 0 };
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (!str_is_name(argv[1], strlen(argv[1]), VM_SNAPSHOT_NAME_MAX))
		return fail(UVMS_EXIT_USAGE, NULL, NULL,
			"\"%s\" cannot be a snapshot's name: 1 to 80 of A-Z a-z 0-9 _ . -",
			argv[1]);
	r = vm_status_look(cli_dirs(), argv[0], &status);
	if (r < 0 || !vm_status_is_alive(&status))
		r = cli_not_running(argv[0]);
	else if (read_spec(argv[0], &spec, &reason) < 0)
		r = fail(UVMS_EXIT_FAILED, reason, NULL, "the specification of %s cannot be read",
			argv[0]);
	else
		r = pin(&status, &spec);
	if (r == 0)
		r = make(argv[0], argv[1], &status, &spec);
	vm_spec_finish(&spec);
	vm_status_finish(&status);
	return r;
}

/* going on from one */

static int look(int dir, const char *name, struct snapshot *s, struct vm_spec *spec)
{
	CLEANUP_FREE char *reason = NULL;
	int r = snapshot_read(dir, s);

	if (r == 0)
		r = vm_spec_read(dir, spec, &reason);
	if (r == 0)
		r = snapshot_check(dir, s, spec, &reason);
	if (r == 0)
		return 0;
	return fail(r == -ESTALE || r == -EBADMSG ? UVMS_EXIT_FAILED : control_error_exit(r),
		reason ? reason : strerror(-r), NULL, "the snapshot %s is not restored", name);
}

/* The VM is as it was then, also where its specification has changed since. */
static int know_vm(const struct vm_spec *spec)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), spec->name, true);
	int r = vm < 0 ? vm : vm_spec_write(vm, spec);

	return r < 0 ? fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be made", spec->name)
		     : 0;
}

static int give_parts(int dir, const char *name, const struct snapshot *s, struct vm_spec *spec)
{
	CLEANUP_FREE char *reason = NULL;
	int r = snapshot_parts_make_volumes(dir, name, s->files, spec, &reason);

	if (r == 0)
		r = snapshot_parts_give_credentials(dir, spec);
	return r == 0 ? 0
		      : fail(control_error_exit(r), reason ? reason : strerror(-r), NULL,
				"the snapshot %s is not restored", name);
}

/* Under the name's lock: nobody starts it meanwhile, and runs with what is changed below it. */
static int give_all(int dir, const char *name, const struct snapshot *s, struct vm_spec *spec)
{
	struct runtime_dir rt;
	char holder[16];
	int r;

	(void)runtime_dir_sweep(cli_dirs(), spec->name);
	r = runtime_dir_lock(cli_dirs(), spec->name, &rt, holder);
	if (r == -EBUSY)
		return fail(UVMS_EXIT_BUSY, NULL, "uvms stop it first", "%s runs", spec->name);
	if (r < 0)
		return fail(control_error_exit(r), strerror(-r), NULL,
			"the snapshot %s is not restored", name);
	r = give_parts(dir, name, s, spec);
	if (r == 0)
		r = know_vm(spec);
	runtime_dir_end(cli_dirs(), spec->name, &rt);
	return r;
}

static int restore(int dir, const char *name, const struct snapshot *s, struct vm_spec *spec)
{
	CLEANUP_CLOSE int client = -EBADF;
	int r = give_all(dir, name, s, spec);

	if (r == 0)
		r = cli_launch_from(spec->name, name, &client);
	return r ? r : cli_wait_ready(spec->name, client);
}

static int run_restore(int argc, char **argv)
{
	CLEANUP(snapshot_finish) struct snapshot s = { 0 };
	CLEANUP_CLOSE int dir = snapshot_open(argv[0]);
	struct vm_spec spec = { 0 };
	int r;

	if (dir < 0)
		return fail(dir == -ENOENT ? UVMS_EXIT_NOT_FOUND : control_error_exit(dir), NULL,
			"uvms snapshot ls shows what there is", "there is no snapshot %s", argv[0]);
	r = look(dir, argv[0], &s, &spec);
	if (r == 0)
		r = restore(dir, argv[0], &s, &spec);
	vm_spec_finish(&spec);
	return r;
}

const struct verb verb_snapshot = {
	.name = "snapshot",
	.arguments = "[--stop] NAME SNAPSHOT",
	.summary = "keep a running VM as it is, memory included",
	.options = options,
	.min = 2,
	.max = 2,
	.run = run_snapshot,
};

const struct verb verb_restore = {
	.name = "restore",
	.arguments = "SNAPSHOT",
	.summary = "go on with a VM as a snapshot kept it",
	.min = 1,
	.max = 1,
	.run = run_restore,
};
