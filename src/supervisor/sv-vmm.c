#include "sv-vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-attach.h"
#include "sv-children.h"
#include "sv-choose.h"
#include "sv-console.h"
#include "sv-lend.h"
#include "sv-link.h"
#include "sv-share.h"
#include "sv-snapshot.h"
#include "sv.h"

static bool vmm_can(const struct sv *sv, unsigned cap)
{
	return vmm_backend_caps(sv->backend) & cap;
}

/* One end to the VMM, the other for us. */
static int vmm_pair(struct sv *sv, enum vmm_fd vmm_end, int *ret_ours)
{
	int pair[2], r;

	r = sockun_pair(SOCK_STREAM, pair);
	if (r < 0)
		return r;
	sv->vmm_fds[vmm_end] = pair[0];
	*ret_ours = pair[1];
	return 0;
}

/* The socket has no name when anybody else could look for it. */
static int vmm_prepare_api(struct sv *sv)
{
	int pipe_fds[2], r;

	r = sockun_listen_unnamed(sv->dir_fd, ".api", 0600, 8, &sv->vmm_control_fd);
	if (r < 0)
		return r;
	sv->vmm_fds[VMM_FD_CONTROL] = r;
	if (pipe2(pipe_fds, O_CLOEXEC) < 0)
		return -errno;
	sv->vmm_events_fd = pipe_fds[0];
	sv->vmm_fds[VMM_FD_EVENTS] = pipe_fds[1];
	return 0;
}

int sv_vmm_prepare(struct sv *sv)
{
	if (vmm_can(sv, VMM_CAP_API))
		return vmm_prepare_api(sv);
	return vmm_pair(sv, VMM_FD_CONTROL, &sv->vmm_control_fd);
}

static int tty_open_peer(int master)
{
	int fd = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

/*
 * Raw from the beginning: nothing of the guest's is echoed to it. Two descriptions of the terminal, because the
 * VMM makes its input non-blocking, and output that does not block would be lost.
 */
static int console_terminal(struct sv *sv)
{
	CLEANUP_CLOSE int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	struct termios t;

	if (master < 0 || unlockpt(master) < 0)
		return -errno;
	for (size_t i = 0; i < ARRAY_SIZE(sv->vmm_tty_fds); i++) {
		sv->vmm_tty_fds[i] = tty_open_peer(master);
		if (sv->vmm_tty_fds[i] < 0)
			return sv->vmm_tty_fds[i];
	}
	if (tcgetattr(master, &t) < 0)
		return -errno;
	cfmakeraw(&t);
	if (tcsetattr(master, TCSANOW, &t) < 0)
		return -errno;
	return TAKE_FD(master);
}

int sv_vmm_console(struct sv *sv)
{
	int ours, r;

	if (vmm_can(sv, VMM_CAP_CONSOLE_TTY))
		return console_terminal(sv);
	r = vmm_pair(sv, VMM_FD_CONSOLE, &ours);
	if (r < 0)
		return r;
	r = fd_set_nonblock(ours, 1);
	if (r < 0) {
		close(ours);
		return r;
	}
	return ours;
}

void sv_vmm_release(struct sv *sv)
{
	sv->vmm_control_fd = fd_close(sv->vmm_control_fd);
	sv->vmm_events_fd = fd_close(sv->vmm_events_fd);
	for (size_t i = 0; i < ARRAY_SIZE(sv->vmm_tty_fds); i++)
		sv->vmm_tty_fds[i] = fd_close(sv->vmm_tty_fds[i]);
	sv->vmm_fds[VMM_FD_NET] = fd_close(sv->vmm_fds[VMM_FD_NET]);
	for (size_t i = 0; i < VMM_FD_KERNEL; i++)
		sv->vmm_fds[i] = fd_close(sv->vmm_fds[i]);
}

/* what it tells */

/* A reset ends a VM that exists for its command; who boots again by itself is not let to. */
static void vmm_end_reboot(struct sv *sv)
{
	sv_happen(sv, SV_GUEST_SHUTDOWN, NULL);
	sv_child_signal(&sv->vmm_child, SIGKILL);
}

/* panic=-1 turns a panic into a reset; not every guest has the pvpanic driver. */
static void vmm_on_reset(struct sv *sv, enum sv_happening otherwise)
{
	bool is_command = sv->spec.command || sv->spec.attached;

	if (sv_console_shows_panic(sv->console))
		sv_happen(sv, SV_GUEST_PANIC, "the guest's kernel panicked");
	else if (otherwise == SV_GUEST_RESET && is_command && !vmm_can(sv, VMM_CAP_REBOOT_ENDS))
		vmm_end_reboot(sv);
	else
		sv_happen(sv, otherwise, NULL);
}

void sv_vmm_fault(struct sv *sv, const char *cause)
{
	if (sv->guest_shutdown)
		sv_child_signal(&sv->vmm_child, SIGKILL);
	else
		sv_happen(sv, SV_VMM_FAULT, cause);
}

/* Whether it is let go is for who attached it to say. */
static void vmm_on_removed(struct sv *sv, const char *id)
{
	sv_attach_gone(sv, id);
	sv_link_gone(sv, id);
	sv_share_gone(sv, id);
}

static void on_vmm(struct vmm *vmm, enum vmm_event event, const char *detail, void *userdata)
{
	struct sv *sv = userdata;

	switch (event) {
	case VMM_EVENT_UP:
		(void)sv_snapshot_lend(sv, false);
		sv_happen(sv, SV_VMM_UP, NULL);
		break;
	case VMM_EVENT_RESET: vmm_on_reset(sv, SV_GUEST_RESET); break;
	case VMM_EVENT_POWERDOWN: break;
	case VMM_EVENT_SHUTDOWN: vmm_on_reset(sv, SV_GUEST_SHUTDOWN); break;
	case VMM_EVENT_PANICKED:
		sv_happen(sv, SV_GUEST_PANIC, "the guest's kernel panicked");
		break;
	case VMM_EVENT_CLOSED: sv_linger(sv, SV_VMM_FAULT); break;
	case VMM_EVENT_FAULT: sv_vmm_fault(sv, detail); break;
	case VMM_EVENT_REMOVED: vmm_on_removed(sv, detail); break;
	}
}

/* start */

static void note_isolation(struct sv *sv)
{
	const char *landlock = !vmm_can(sv, VMM_CAP_LANDLOCK) ? ""
			       : sv_choose_landlock(sv)       ? " landlock"
							      : " landlock:unavailable";
	char *text = str_printf("%s %sno-new-privs no-capabilities net-namespace seccomp%s",
		sv->status.isolation, geteuid() == 0 ? "own-uid " : "", landlock);

	if (text) {
		free(sv->status.isolation);
		sv->status.isolation = text;
	}
}

static gid_t kvm_group(const struct sv *sv)
{
	struct stat st;

	if (!str_eq(sv->status.accel, "kvm") || stat("/dev/kvm", &st) < 0)
		return (gid_t)-1;
	return st.st_gid;
}

/* Beside each page of a snapshot (QEMU: 8 bytes of 4 KiB), and the devices. */
static uint64_t snapshot_bytes(uint64_t memory)
{
	return memory + memory / 256 + (UINT64_C(64) << 20);
}

/*
 * The largest file that it has to write: its memory, in a snapshot, or a volume. Whoever may get another volume later
 * may write what is the largest of those.
 */
static unsigned long long vmm_file_bytes(const struct sv *sv)
{
	uint64_t n = sv->spec.memory_max_bytes > sv->spec.memory_bytes ? sv->spec.memory_max_bytes
								       : sv->spec.memory_bytes;
	struct stat st;

	n = snapshot_bytes(n);
	if (sv->spec.hotplug_slots > 0)
		return VM_VOLUME_MAX_BYTES;
	for (size_t i = VMM_FD_DISK; i < SV_FDS_MAX; i++) {
		if (sv->vmm_fds[i] >= 0 && fstat(sv->vmm_fds[i], &st) == 0 &&
			(uint64_t)st.st_size > n)
			n = (uint64_t)st.st_size;
	}
	return n;
}

static int vmm_spawn(struct sv *sv, const char *const *argv)
{
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 }, { RLIMIT_NOFILE, 4096 },
		{ RLIMIT_FSIZE, vmm_file_bytes(sv) } };
	int fds[SPAWN_FDS_MAX];
	struct spawn spawn = { SPAWN_DEFAULTS, .fds = fds, .limits = limits,
		.n_limits = ARRAY_SIZE(limits) };

	spawn.n_fds =
		VMM_FD_DISK - 3 + strv_length(sv->image.layers) + strv_length(sv->spec.volumes);
	for (size_t i = 0; i < spawn.n_fds; i++)
		fds[i] = sv->vmm_fds[3 + i];
	spawn.path = argv[0];
	spawn.argv = argv;
	sv_child_confine(&sv->vmm_child, &spawn);
	spawn.extra_gid = kvm_group(sv);
	if (!sv_choose_vsockd(sv))
		spawn.cwd_fd = sv->vsock_fd;
	if (vmm_can(sv, VMM_CAP_CONSOLE_TTY)) {
		spawn.stdin_fd = sv->vmm_tty_fds[0];
		spawn.stdout_fd = sv->vmm_tty_fds[1];
	}
	return sv_child_start(&sv->vmm_child, &spawn);
}

static int vmm_attach(struct sv *sv, const char *const *calls)
{
	const struct vmm_channels channels = { TAKE_FD(sv->vmm_control_fd),
		TAKE_FD(sv->vmm_events_fd), TAKE_FD(sv->tap.fd), TAKE_FD(sv->restore_fd) };

	return vmm_attach_consume(sv->backend, sv->event, &channels, calls, on_vmm, sv, &sv->vmm);
}

int sv_vmm_start(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	const char *const *argv = (const char *const *)step->args;
	int r = sv_choose_landlock(sv) ? sv_choose_landlock_make(sv) : 0;

	if (vmm_can(sv, VMM_CAP_API))
		sv_lend_end(sv, NULL);
	if (r == 0)
		r = sv_snapshot_lend(sv, true);
	if (r == 0)
		r = vmm_spawn(sv, argv);
	if (r < 0) {
		*ret_reason = str_printf("%s cannot be started: %s", argv[0], strerror(-r));
		return r;
	}
	sv->status.vmm_pid = (uint32_t)sv->vmm_child.pid;
	note_isolation(sv);
	for (size_t i = 0; i < SV_FDS_MAX; i++)
		sv->vmm_fds[i] = fd_close(sv->vmm_fds[i]);
	for (size_t i = 0; i < ARRAY_SIZE(sv->vmm_tty_fds); i++)
		sv->vmm_tty_fds[i] = fd_close(sv->vmm_tty_fds[i]);
	return vmm_can(sv, VMM_CAP_API) ? 0 : vmm_attach(sv, NULL);
}

/* As it was leased. */
static int call_with_cid(char ***calls, const char *call, uint32_t cid)
{
	const char *place = strstr(call, "\"" VMM_CALL_CID "\"");

	if (!place)
		return strv_push(calls, call);
	return strv_pushf(calls, "%.*s%u%s", (int)(place - call), call, cid,
		place + strlen("\"" VMM_CALL_CID "\""));
}

int sv_vmm_boot(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	CLEANUP(strv_freep) char **calls = NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && step->args[i]; i++)
		r = call_with_cid(&calls, step->args[i], sv->status.cid);
	return r < 0 ? r : vmm_attach(sv, (const char *const *)calls);
}

int sv_vmm_resume(struct sv *sv, const struct vmm_saved *saved)
{
	return vmm_restore_consume(sv->backend, sv->event, saved, on_vmm, sv, &sv->vmm);
}

void sv_vmm_stop(struct sv *sv)
{
	sv_child_finish(&sv->vmm_child);
	(void)sv_snapshot_lend(sv, false);
	vmm_destroy(TAKE_PTR(sv->vmm));
	sv_attach_finish(sv);
	sv_link_finish(sv);
	sv_share_finish(sv);
}
