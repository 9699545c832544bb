#include "sv-snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "file.h"
#include "str.h"
#include "sv-agent.h"
#include "sv-change.h"
#include "sv-children.h"
#include "sv-control.h"
#include "sv-copy.h"
#include "sv-fsm.h"
#include "sv-vsockd.h"
#include "sv.h"

#define SNAPSHOT_SECRET      "secret"
#define SNAPSHOT_VMM         "vmm"
#define SNAPSHOT_VOLUMES     "volumes"

#define SNAPSHOT_VMM_FILES   128

#define SNAPSHOT_FREEZE_USEC (UINT64_C(10) * 1000000)
#define SNAPSHOT_BACK_USEC   (UINT64_C(60) * 1000000)

/* Hidden ones too: a client completes it under such a name. */
static bool name_is_good(const char *name)
{
	const char *rest = *name == '.' ? name + 1 : name;

	return str_is_name(rest, strlen(rest), VM_SNAPSHOT_NAME_MAX);
}

static int snapshot_open(const struct sv *sv, const char *name)
{
	CLEANUP_CLOSE int all = vm_dirs_open_state(&sv->dirs, VM_SNAPSHOTS);
	int fd;

	if (all < 0)
		return all;
	fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static int vmm_dir_open(int snapshot)
{
	int fd = openat(snapshot, SNAPSHOT_VMM, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : fd;
}

static char *snapshot_path(const struct sv *sv, const char *name)
{
	return str_printf("%s/" VM_SNAPSHOTS "/%s/" SNAPSHOT_VMM, sv->dirs.state, name);
}

static int secret_write(const struct sv *sv, int dir)
{
	char hex[2 * AGENT_WIRE_SECRET + 1];
	int r;

	str_hex(hex, sv->secret, sizeof sv->secret);
	r = file_write_at(dir, SNAPSHOT_SECRET, hex, strlen(hex), 0600);
	explicit_bzero(hex, sizeof hex);
	return r;
}

static int secret_read(struct sv *sv, int dir)
{
	CLEANUP_FREE char *hex = NULL;
	size_t len;
	int r = file_read_at(dir, SNAPSHOT_SECRET, 2 * AGENT_WIRE_SECRET, &hex, &len);

	if (r < 0)
		return r;
	r = len == 2 * AGENT_WIRE_SECRET ? str_unhex(sv->secret, hex, sizeof sv->secret) : -EINVAL;
	explicit_bzero(hex, len);
	return r;
}

/* What cannot be done, or what the guest's memory does not hold and another start may find changed. */
static char *hindrance(const struct sv *sv)
{
	unsigned caps = vmm_backend_caps(sv->backend);
	char *why = vmm_check_snapshot(sv->backend, sv->vmm_version, strv_length(sv->spec.volumes));

	if (why)
		return why;
	if (sv->link.attached)
		return strdup(
			"a snapshot with an attached network: not supported; uvms detach --net");
	if (sv->status.attached)
		return strdup(
			"a snapshot of a VM with volumes that were attached while it ran: not "
			"supported yet");
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		const struct sv_share *share = &sv->shares[i];

		if (share->kind != SV_SHARE_NONE)
			return str_printf("a snapshot with %s at %s: not supported",
				share->kind == SV_SHARE_DIR ? "a shared directory" : "an image",
				share->path);
	}
	/* told by its command line, it has those of the specification when it is restored */
	if (!(caps & VMM_CAP_API) && (sv->status.cpus != sv->spec.cpus ||
					     sv->status.memory_bytes != sv->spec.memory_bytes))
		return str_printf(
			"a snapshot of a VM whose CPUs or memory were set while it ran: not "
			"supported by back-end %s yet",
			vmm_backend_name(sv->backend));
	return NULL;
}

/* Each phase is what is waited for. */
enum {
	SNAPSHOT_NONE,
	SNAPSHOT_FREEZE,    /* the agent: no other program of the guest runs */
	SNAPSHOT_VSOCK_OUT, /* VMM_CAP_VSOCK_OUT: the guest gives the device up */
	SNAPSHOT_PAUSE,
	SNAPSHOT_SAVE,
	SNAPSHOT_COPY,     /* the volumes, by a process of ours */
	SNAPSHOT_VSOCK_IN, /* and from here on the way back */
	SNAPSHOT_RESUME,
	SNAPSHOT_THAW, /* the agent: calls again where it must, and lets all run */
};

bool sv_snapshot_is_under_way(const struct sv *sv)
{
	return sv->snapshot.phase != SNAPSHOT_NONE;
}

bool sv_snapshot_took(const struct sv *sv)
{
	return sv->snapshot.phase == SNAPSHOT_VSOCK_OUT;
}

static void note_error(struct sv *sv, int error, const char *reason)
{
	struct sv_snapshot *s = &sv->snapshot;

	if (error == 0 || s->error)
		return;
	s->error = error;
	(void)str_set(&s->reason, str_or(reason, strerror(-error)));
}

static void answer(struct sv *sv)
{
	struct sv_snapshot *s = &sv->snapshot;
	struct control_call *call = TAKE_PTR(s->call);

	if (!call)
		return;
	if (s->error == 0)
		control_call_reply(call, NULL, -EBADF);
	else
		control_call_error(call, s->error,
			control_error_words("no snapshot was made", s->reason, NULL));
}

static void on_copied(struct sv_child *c);

static void clear(struct sv *sv)
{
	struct sv_snapshot *s = &sv->snapshot;

	s->timer = sd_event_source_disable_unref(s->timer);
	sv_child_finish(&s->copy);
	fd_close(s->dir_fd);
	fd_close(s->volumes_fd);
	free(s->path);
	free(s->reason);
	sv_snapshot_init(sv);
}

/* The VM is as it was. Who waited meanwhile has his turn; so has a stop. */
static void be_over(struct sv *sv)
{
	answer(sv);
	clear(sv);
	if (sv->state == SV_STOP_AGENT)
		sv_happen(sv, SV_AGENT_READY, NULL);
	else if (sv->state == SV_RUNNING)
		sv_control_tell_ready(sv);
}

void sv_snapshot_init(struct sv *sv)
{
	sv->snapshot = (struct sv_snapshot){ .dir_fd = -EBADF, .volumes_fd = -EBADF };
	sv_child_init(&sv->snapshot.copy, sv, "copy", SV_HAPPENINGS);
	sv->snapshot.copy.ended = on_copied;
}

/* It cannot be brought back to where it was. */
static void be_lost(struct sv *sv, int error, const char *what, const char *why)
{
	CLEANUP_FREE char *cause =
		str_printf("after its snapshot %s: %s", what, str_or(why, strerror(-error)));

	/* the VMM is not there: its own end comes, and says why */
	if (error == -EPIPE || error == -ENOTCONN || sv_child_has_ended(&sv->vmm_child))
		return;
	note_error(sv, error, cause);
	answer(sv);
	clear(sv);
	sv_happen(sv, SV_VMM_FAULT, cause);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv *sv = userdata;

	if (sv->snapshot.phase == SNAPSHOT_COPY)
		sv_child_signal(&sv->snapshot.copy, SIGKILL);
	else if (sv->snapshot.phase == SNAPSHOT_FREEZE)
		sv_snapshot_told(sv, true, -ETIMEDOUT);
	else
		be_lost(sv, -ETIMEDOUT, "the guest is not as it was", "its agent does not answer");
	return 0;
}

static int wait_for(struct sv *sv, uint64_t usec)
{
	struct sv_snapshot *s = &sv->snapshot;

	s->timer = sd_event_source_disable_unref(s->timer);
	return sd_event_add_time_relative(
		sv->event, &s->timer, CLOCK_MONOTONIC, usec, 0, on_timer, sv);
}

static void on_done(struct sv *sv, int error, const char *reason);

/* Asks the VMM; what cannot be asked has failed. */
static void ask(struct sv *sv, int phase, struct vmm_op op)
{
	int r;

	sv->snapshot.phase = phase;
	r = sv_change_do(sv, &op, on_done);
	if (r < 0)
		on_done(sv, r, NULL);
}

/* From here on the guest goes on, whatever has been. */
static void thaw(struct sv *sv)
{
	int r = wait_for(sv, SNAPSHOT_BACK_USEC);

	sv->snapshot.phase = SNAPSHOT_THAW;
	if (r >= 0)
		r = sv_agent_hold(sv->agent, false);
	/* without a channel it calls again */
	if (r < 0 && r != -ENOTCONN)
		be_lost(sv, r, "the guest is not as it was", NULL);
}

static void resume(struct sv *sv)
{
	if (sv->snapshot.is_paused)
		ask(sv, SNAPSHOT_RESUME, (struct vmm_op){ .kind = VMM_OP_RESUME });
	else
		thaw(sv);
}

static void go_back(struct sv *sv)
{
	CLEANUP_CLOSE int theirs = -EBADF;
	int r;

	if (!sv->snapshot.is_out) {
		resume(sv);
		return;
	}
	r = sv_vsockd_renew(sv, &theirs);
	if (r < 0)
		be_lost(sv, r, "uvms-vsockd cannot be started", NULL);
	else
		ask(sv, SNAPSHOT_VSOCK_IN,
			(struct vmm_op){ .kind = VMM_OP_VSOCK_IN, .fd = theirs });
}

static void be_saved(struct sv *sv)
{
	if (sv->snapshot.error || !sv->snapshot.stop) {
		go_back(sv);
		return;
	}
	answer(sv);
	clear(sv);
	sv_happen(sv, SV_FORCE, "uvms snapshot --stop");
}

/* What its process said, or how it ended. */
static void note_copy(struct sv *sv)
{
	struct sv_child *c = &sv->snapshot.copy;
	CLEANUP_FREE char *said = NULL;
	char text[128];

	if (c->end.si_code == CLD_EXITED && c->end.si_status == 0)
		return;
	sv_child_catch_up(c);
	said = sv_logfile_tail(&c->log, 300);
	if (said)
		said[strcspn(said, "\n")] = 0;
	note_error(sv, -EIO, said && *said ? said : sv_child_describe(c, text, sizeof text));
}

static void on_copied(struct sv_child *c)
{
	if (c->sv->snapshot.phase != SNAPSHOT_COPY)
		return;
	note_copy(c->sv);
	be_saved(c->sv);
}

/* The guest stands still: what is on its volumes belongs to what it has in mind. */
static void copy(struct sv *sv)
{
	int r;

	if (sv->snapshot.error || !sv->spec.volumes) {
		be_saved(sv);
		return;
	}
	sv->snapshot.phase = SNAPSHOT_COPY;
	r = wait_for(sv, VMM_SNAPSHOT_USEC);
	if (r >= 0)
		r = sv_copy_start(sv, sv->snapshot.volumes_fd);
	if (r < 0) {
		note_error(sv, r, NULL);
		be_saved(sv);
	}
}

/* A stop comes first. */
static bool shall_go_on(struct sv *sv)
{
	if (!sv_fsm_is_up(sv->state))
		note_error(sv, -ECANCELED, "the VM is being stopped");
	return sv->snapshot.error == 0;
}

static void hold(struct sv *sv)
{
	if (shall_go_on(sv))
		ask(sv, SNAPSHOT_PAUSE, (struct vmm_op){ .kind = VMM_OP_PAUSE });
	else
		go_back(sv);
}

static void save(struct sv *sv)
{
	struct sv_snapshot *s = &sv->snapshot;

	if (shall_go_on(sv))
		ask(sv, SNAPSHOT_SAVE,
			(struct vmm_op){
				.kind = VMM_OP_SNAPSHOT, .path = s->path, .fd = s->dir_fd });
	else
		go_back(sv);
}

static void on_done(struct sv *sv, int error, const char *reason)
{
	struct sv_snapshot *s = &sv->snapshot;

	switch (s->phase) {
	case SNAPSHOT_VSOCK_OUT:
		note_error(sv, error, error ? "the guest does not give up its vsock device" : NULL);
		s->is_out = error == 0;
		if (s->is_out) {
			sv_vsockd_retire(sv);
		} else if (!sv_child_is_running(&sv->vsockd.child)) {
			/* it died in the midst of it, and was taken for one that had done its work */
			s->phase = SNAPSHOT_NONE;
			sv_happen(sv, SV_VSOCKD_GONE, NULL);
			s->phase = SNAPSHOT_VSOCK_OUT;
		}
		hold(sv);
		break;
	case SNAPSHOT_PAUSE:
		note_error(sv, error, reason);
		s->is_paused = error == 0;
		save(sv);
		break;
	case SNAPSHOT_SAVE:
		note_error(sv, error, reason);
		copy(sv);
		break;
	case SNAPSHOT_VSOCK_IN:
		if (error)
			be_lost(sv, error, "the guest gets no vsock device", reason);
		else
			resume(sv);
		break;
	case SNAPSHOT_RESUME:
		if (error)
			be_lost(sv, error, "the guest does not go on", reason);
		else
			thaw(sv);
		break;
	}
}

static void begin(struct sv *sv, const char *name, struct control_call *call, bool stop)
{
	struct sv_snapshot *s = &sv->snapshot;
	int r;

	s->path = snapshot_path(sv, name);
	s->stop = stop;
	s->call = call;
	r = s->path ? wait_for(sv, SNAPSHOT_FREEZE_USEC) : -ENOMEM;
	if (r >= 0)
		r = sv_agent_hold(sv->agent, true);
	s->phase = SNAPSHOT_FREEZE;
	if (r < 0) {
		note_error(sv, r,
			r == -EOPNOTSUPP
				? "the agent in the guest is of an older uvms: restart the VM"
				: "the agent in the guest is not there: try again");
		be_over(sv);
	}
}

/* Of what was restored some program stands still, and nobody would be told. */
static void not_thawed(struct sv *sv, int error)
{
	CLEANUP_FREE char *cause = str_printf(
		"after its restore the guest's programs do not go on: %s", strerror(-error));

	sv_happen(sv, SV_VMM_FAULT, cause);
}

/* It must not run on by itself: who is not frozen is asked to be what he is. */
void sv_snapshot_told(struct sv *sv, bool frozen, int error)
{
	struct sv_snapshot *s = &sv->snapshot;

	if (s->phase == SNAPSHOT_THAW && !frozen) {
		if (error)
			be_lost(sv, error, "the guest is not as it was", NULL);
		else
			be_over(sv);
		return;
	}
	if (sv->restore && s->phase == SNAPSHOT_NONE && !frozen && error)
		not_thawed(sv, error);
	if (s->phase != SNAPSHOT_FREEZE || !frozen)
		return;
	s->timer = sd_event_source_disable_unref(s->timer);
	note_error(sv, error,
		error == -EOPNOTSUPP ? "the guest's kernel cannot hold its programs still (cgroup2)"
				     : "the guest's programs cannot be held still");
	if (s->error)
		thaw(sv);
	else if (vmm_backend_caps(sv->backend) & VMM_CAP_VSOCK_OUT)
		ask(sv, SNAPSHOT_VSOCK_OUT, (struct vmm_op){ .kind = VMM_OP_VSOCK_OUT });
	else
		hold(sv);
}

/* What was restored is frozen as it was saved; it has been told the time, and has got entropy, by WELCOME. */
void sv_snapshot_agent_called(struct sv *sv)
{
	if (sv->snapshot.phase == SNAPSHOT_THAW ||
		(sv->restore && sv->snapshot.phase == SNAPSHOT_NONE))
		(void)sv_agent_hold(sv->agent, false);
}

void sv_snapshot_cancel(struct sv *sv)
{
	note_error(sv, -ECANCELED, "the VM is being stopped");
	if (sv->snapshot.phase == SNAPSHOT_SAVE)
		vmm_cancel(sv->vmm);
	if (sv->snapshot.phase == SNAPSHOT_COPY)
		sv_child_signal(&sv->snapshot.copy, SIGKILL);
}

void sv_snapshot_forget(struct sv *sv, struct control_call *call)
{
	if (sv->snapshot.call == call)
		sv->snapshot.call = NULL;
}

void sv_snapshot_finish(struct sv *sv)
{
	note_error(sv, -ESHUTDOWN, "the VM ended");
	answer(sv);
	clear(sv);
}

static const char *busy(const struct sv *sv)
{
	if (sv->state != SV_RUNNING)
		return "it does not run";
	if (sv->refresh.call || sv->refresh.done || sv->change.busy ||
		sv_snapshot_is_under_way(sv) || sv_handover_is_under_way(sv))
		return "another change is under way: try again";
	return NULL;
}

void sv_snapshot_ask(struct sv *sv, struct control_call *call, const char *name, bool stop)
{
	CLEANUP_FREE char *why = hindrance(sv);
	CLEANUP_CLOSE int dir = -EBADF, vmm = -EBADF, volumes = -EBADF;
	int r;

	if (why || busy(sv)) {
		control_call_error(call, why ? -EOPNOTSUPP : -EBUSY,
			control_error_words(why ? why : busy(sv), NULL, NULL));
		return;
	}
	dir = name_is_good(name) ? snapshot_open(sv, name) : -EINVAL;
	r = dir < 0 ? dir : secret_write(sv, dir);
	if (r == 0)
		r = vmm = vmm_dir_open(dir);
	if (r >= 0 && sv->spec.volumes)
		r = volumes = file_mkdir_at(dir, SNAPSHOT_VOLUMES, 0700);
	if (r < 0) {
		control_call_error(call, r, control_error_words(strerror(-r), NULL, NULL));
		return;
	}
	clear(sv);
	sv->snapshot.dir_fd = TAKE_FD(vmm);
	sv->snapshot.volumes_fd = TAKE_FD(volumes);
	begin(sv, name, call, stop);
}

int sv_snapshot_load(struct sv *sv, char **ret_reason)
{
	CLEANUP_CLOSE int dir =
		name_is_good(sv->restore) ? snapshot_open(sv, sv->restore) : -EINVAL;
	int r = dir < 0 ? dir : secret_read(sv, dir);

	if (r < 0) {
		*ret_reason =
			str_printf("the snapshot %s cannot be used: %s", sv->restore, strerror(-r));
		return r;
	}
	sv->restore_path = snapshot_path(sv, sv->restore);
	sv->restore_fd = vmm_dir_open(dir);
	return sv->restore_path ? sv->restore_fd < 0 ? sv->restore_fd : 0 : -ENOMEM;
}

static int lend_file(int dir, const char *name, gid_t gid)
{
	CLEANUP_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return -EBADMSG;
	return fchown(fd, 0, gid) < 0 || fchmod(fd, gid ? 0440 : 0600) < 0 ? -errno : 0;
}

int sv_snapshot_lend(const struct sv *sv, bool lend)
{
	CLEANUP_CLOSE int snapshot = -EBADF, dir = -EBADF;
	CLEANUP(strv_freep) char **names = NULL;
	gid_t gid = lend ? sv->status.uid : 0;
	int r;

	if (!sv->restore || geteuid() != 0)
		return 0;
	snapshot = snapshot_open(sv, sv->restore);
	dir = snapshot < 0 ? snapshot : vmm_dir_open(snapshot);
	if (dir < 0)
		return dir;
	if (fchown(dir, 0, gid) < 0 || fchmod(dir, gid ? 0750 : 0700) < 0)
		return -errno;
	r = file_list_at(dir, ".", SNAPSHOT_VMM_FILES, &names);
	for (char **n = names; r == 0 && n && *n; n++)
		r = lend_file(dir, *n, gid);
	return r;
}
