#include "sv-steps.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "boot-desc.h"
#include "cleanup.h"
#include "control-group.h"
#include "control-server.h"
#include "fd.h"
#include "file.h"
#include "initramfs.h"
#include "log.h"
#include "path.h"
#include "sandbox.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-agent.h"
#include "sv-broker.h"
#include "sv-children.h"
#include "sv-choose.h"
#include "sv-console.h"
#include "sv-control.h"
#include "sv-dialed.h"
#include "sv-net.h"
#include "sv-vmm.h"
#include "sv-vsockd.h"
#include "sv.h"
#include "vm-lease.h"
#include "vm-name.h"
#include "vm-volume.h"
#include "volume.h"

static int do_leases(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	int r;

	r = vm_lease_cid(&sv->dirs, sv->spec.name, &sv->status.cid);
	if (r == 0 && geteuid() == 0)
		r = vm_lease_uid(&sv->dirs, sv->spec.name, &sv->status.uid);
	else
		sv->status.uid = getuid();
	return r;
}

/* The numbers belong to the name as long as it is known (vm_lease_drop()); what was booted goes with its VMM. */
static void undo_nothing(struct sv *sv)
{
}

static int do_layers(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	for (size_t i = 0; sv->image.layers[i]; i++) {
		int fd = store_open_blob(sv->store, sv->image.layers[i], ret_reason);

		if (fd < 0)
			return fd;
		sv->vmm_fds[VMM_FD_DISK + i] = fd;
	}
	return 0;
}

static void undo_layers(struct sv *sv)
{
	for (size_t i = VMM_FD_DISK; i < SV_FDS_MAX; i++)
		sv->vmm_fds[i] = fd_close(sv->vmm_fds[i]);
}

static int open_volumes(struct sv *sv, int volumes_fd, char **ret_reason)
{
	size_t disk = VMM_FD_DISK + strv_length(sv->image.layers);

	for (char **v = sv->spec.volumes; *v; v++, disk++) {
		struct vm_volume volume;
		const char *reason;
		int fd;

		if (vm_volume_parse(*v, &volume, &reason) < 0)
			return -EINVAL;
		fd = volume_open(volumes_fd, volume.name, volume.size_bytes, ret_reason);
		if (fd < 0)
			return fd;
		sv->vmm_fds[disk] = fd;
		/* a VMM that opens it again, by its descriptor, does so as the VM */
		if (geteuid() == 0 && fchown(fd, sv->status.uid, sv->status.uid) < 0)
			return -errno;
	}
	return 0;
}

static int do_volumes(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(&sv->dirs, "volumes");

	return volumes < 0 ? volumes : open_volumes(sv, volumes, ret_reason);
}

static int do_kernel(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	int fd = store_open_blob(sv->store, sv->kernel.kernel, ret_reason);

	if (fd < 0)
		return fd;
	sv->vmm_fds[VMM_FD_KERNEL] = fd;
	return 0;
}

static void undo_kernel(struct sv *sv)
{
	sv->vmm_fds[VMM_FD_KERNEL] = fd_close(sv->vmm_fds[VMM_FD_KERNEL]);
}

/* The strings stay borrowed from static memory and the spec, behind its second colon cut off here. */
static int describe_volumes(struct sv *sv, struct boot_desc *d)
{
	for (char **v = sv->spec.volumes; v && *v; v++) {
		static const char *const serials[] = { "volume0", "volume1", "volume2", "volume3",
			"volume4", "volume5", "volume6", "volume7" };
		const char *path = strchr(*v, ':') + 1;
		struct vm_volume volume;
		const char *reason;

		static_assert(ARRAY_SIZE(serials) == VM_VOLUMES_MAX, "a serial for every volume");
		if (vm_volume_parse(*v, &volume, &reason) < 0)
			return -EINVAL;
		d->mounts[d->n_mounts] =
			(struct boot_desc_mount){ .source = wire_str_from(serials[d->n_mounts]),
				.fstype = wire_str_from("ext4"),
				.target = { path, (uint32_t)strlen(volume.path) } };
		d->n_mounts++;
	}
	return 0;
}

/* The strings stay borrowed from the spec. */
static int fill_boot_desc(struct sv *sv, struct boot_desc *d)
{
	const struct vm_spec *s = &sv->spec;
	struct timespec now;
	char id[33];
	int r;

	clock_gettime(CLOCK_REALTIME, &now);
	d->mode = s->command || s->attached ? BOOT_DESC_COMMAND : BOOT_DESC_INIT;
	d->flags = BOOT_DESC_READY_PROBE | (s->hotplug_slots ? BOOT_DESC_HOTPLUG : 0);
	memcpy(d->secret, sv->secret, sizeof d->secret);
	if (getrandom(d->seed, sizeof d->seed, 0) != sizeof d->seed)
		return -EIO;
	d->realtime_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
	vm_name_id("machine-id", s->name, id);
	r = str_unhex(d->machine_id, id, sizeof d->machine_id);
	if (r < 0)
		return r;
	d->root_size_bytes = s->root_bytes;
	d->hostname = wire_str_from(s->name);
	d->env = wire_strv_from((const char *const *)s->env);
	if (!s->attached) {
		/* an attached client executes its command itself, in a session */
		d->argv = wire_strv_from((const char *const *)s->command);
		d->user = wire_str_from(s->user);
		d->workdir = wire_str_from(s->workdir);
	}
	for (; sv->image.layers[d->n_layers]; d->n_layers++) {
		static const char serials[][8] = { "layer0", "layer1", "layer2", "layer3", "layer4",
			"layer5", "layer6", "layer7", "layer8", "layer9", "layer10", "layer11",
			"layer12", "layer13", "layer14", "layer15" };

		static_assert(ARRAY_SIZE(serials) == VMM_DISKS_MAX, "a serial for every disk");
		d->layers[d->n_layers] =
			(struct boot_desc_layer){ wire_str_from(serials[d->n_layers]),
				wire_str_from("erofs") };
	}
	sv_net_describe(sv, d);
	return describe_volumes(sv, d);
}

/* The VM's user may read it, nobody else: the secret is in it. */
static int close_to_others(struct sv *sv, int fd)
{
	if (fchmod(fd, 0400) < 0)
		return -errno;
	return geteuid() == 0 && fchown(fd, sv->status.uid, sv->status.uid) < 0 ? -errno : 0;
}

static int build_initramfs(struct sv *sv, struct initramfs *i)
{
	CLEANUP_CLOSE int credentials = -EBADF;

	if (sv->spec.credentials) {
		credentials = openat(
			sv->vm_fd, "credentials", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
		if (credentials < 0)
			return -errno;
		i->credentials_fd = credentials;
		i->credentials = (const char *const *)sv->spec.credentials;
		i->credentials_max = VM_CREDENTIAL_MAX_BYTES;
	}
	return initramfs_build(i);
}

static int do_initramfs(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	CLEANUP_CLOSE int modules = -EBADF, guest = -EBADF, fd = -EBADF;
	CLEANUP_FREE uint8_t *text = malloc(BOOT_DESC_MAX);
	CLEANUP_FREE struct boot_desc *d = calloc(1, sizeof *d);
	CLEANUP_FREE char *program = NULL;
	ssize_t len;
	int r;

	if (!text || !d)
		return -ENOMEM;
	modules = store_open_blob(sv->store, sv->kernel.modules, ret_reason);
	if (modules < 0)
		return modules;
	r = path_find_helper("uvms-guest", &program);
	if (r < 0)
		return r;
	guest = open(program, O_RDONLY | O_CLOEXEC);
	if (guest < 0)
		return -errno;
	r = fill_boot_desc(sv, d);
	if (r < 0)
		return r;
	len = boot_desc_encode(d, text, BOOT_DESC_MAX);
	if (len < 0) {
		*ret_reason = strdup("the command and its environment are too large");
		return (int)len;
	}
	/* a memfd can be in no rule of Landlock (landlock_add_rule(2): EBADFD) */
	fd = build_initramfs(sv, &(struct initramfs){ .modules_fd = modules,
					 .guest_fd = guest,
					 .into_fd = sv_choose_landlock(sv) ? sv->dir_fd : -EBADF,
					 .boot = text,
					 .boot_len = (size_t)len });
	explicit_bzero(text, (size_t)len);
	if (fd < 0)
		return fd;
	r = close_to_others(sv, fd);
	if (r == 0)
		sv->vmm_fds[VMM_FD_INITRD] = TAKE_FD(fd);
	return r;
}

static void undo_initramfs(struct sv *sv)
{
	sv->vmm_fds[VMM_FD_INITRD] = fd_close(sv->vmm_fds[VMM_FD_INITRD]);
}

static int make_control(struct sv *sv)
{
	int fd = sockun_listen_at(sv->dir_fd, "control", 0660, 64);
	gid_t group;

	/* system VMs: root and the group that equals it (SECURITY.md) */
	if (fd >= 0 && geteuid() == 0 && control_group_find(&group) == 0 &&
		fchownat(sv->dir_fd, "control", 0, group, 0) < 0) {
		close(fd);
		return -errno;
	}
	return fd < 0 ? fd : control_server_listen_consume(sv->control, fd);
}

/*
 * Where the hybrid socket is and what listens for the guest's calls. With a VMM that brings the socket itself
 * the directory is the VM's: nothing else is in it, and what is in it is believed by its owner alone.
 */
static int make_vsock_dir(struct sv *sv)
{
	sv->vsock_fd = file_mkdir_at(sv->dir_fd, SV_VSOCK_DIR, 0711);
	return sv->vsock_fd < 0 ? sv->vsock_fd : 0;
}

static int give_vsock_dir(struct sv *sv)
{
	if (geteuid() == 0 && fchown(sv->vsock_fd, sv->status.uid, sv->status.uid) < 0)
		return -errno;
	return 0;
}

/* vsockd or the VMM, as the VM's user, connects to it. */
static int make_home(struct sv *sv)
{
	int fd = sockun_listen_at(sv->vsock_fd, VMM_VSOCK_SOCKET "_1023", 0600, 16);

	if (fd < 0)
		return fd;
	if (geteuid() == 0 && fchownat(sv->vsock_fd, VMM_VSOCK_SOCKET "_1023", sv->status.uid,
				      sv->status.uid, 0) < 0) {
		close(fd);
		return -errno;
	}
	return sv_agent_create_consume(sv, fd, &sv->agent);
}

static int make_console(struct sv *sv)
{
	int fd = sv_vmm_console(sv);

	return fd < 0 ? fd : sv_console_create_consume(sv, fd, &sv->console);
}

/* A VMM that does not connect is connected. */
static int make_vsock_pair(struct sv *sv)
{
	int pair[2], r;

	r = sv_vsockd_prepare(sv);
	if (r == 0)
		r = sockun_pair(SOCK_STREAM, pair);
	if (r < 0)
		return r;
	sv->vmm_fds[VMM_FD_VSOCK] = pair[0];
	sv->vsockd.device_fd = pair[1];
	return 0;
}

static int make_vsock_device(struct sv *sv)
{
	bool dials = vmm_backend_caps(sv->backend) & VMM_CAP_VSOCK_DIALS;
	int r = dials ? sv_dialed_open(sv) : make_vsock_pair(sv);

	if (r < 0)
		return r;
	sv->vsockd.listen_fd = sockun_listen_at(sv->vsock_fd, VMM_VSOCK_SOCKET, 0600, 128);
	return sv->vsockd.listen_fd < 0 ? sv->vsockd.listen_fd : 0;
}

static int do_sockets(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	int r;

	r = make_control(sv);
	if (r == 0)
		r = make_vsock_dir(sv);
	if (r == 0)
		r = make_home(sv);
	if (r == 0)
		r = make_console(sv);
	if (r == 0)
		r = sv_vmm_prepare(sv);
	if (r < 0)
		return r;
	return sv_choose_vsockd(sv) ? make_vsock_device(sv) : give_vsock_dir(sv);
}

/* The control server lives on: it has the last words (sv-actions). */
static void undo_sockets(struct sv *sv)
{
	sv_agent_destroy(TAKE_PTR(sv->agent));
	sv_console_destroy(TAKE_PTR(sv->console));
	sv_dialed_finish(sv);
	sv_vsockd_release(sv);
	sv_vmm_release(sv);
	sv->vsock_fd = fd_close(sv->vsock_fd);
}

/* The program that is PID 1 in the namespace: ends when the life pipe does, and all others with it. */
static int start_namespace_init(struct sv *sv)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP_CLOSE int reader = -EBADF;
	int pair[2], r;

	r = path_find_helper("uvms-init", &program);
	if (r < 0)
		return r;
	if (pipe2(pair, O_CLOEXEC) < 0)
		return -errno;
	reader = pair[0];
	sv->life_fd = pair[1];
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program,
		.argv = (const char *[]){ "uvms-init", sv->spec.name, NULL }, .fds = &reader,
		.n_fds = 1, .death_signal = SIGKILL, .no_new_privs = true };
	return sv_child_start(&sv->namespace_child, &spawn);
}

static int do_namespace(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	int r = geteuid() == 0 ? 0 : sandbox_enter_user_namespace(CLONE_NEWUSER);

	if (r == 0 && unshare(CLONE_NEWPID) < 0)
		r = -errno;
	if (r < 0) {
		/* without it: PDEATHSIG, which misses grandchildren; the status says so */
		log_warning("%s: no PID namespace (%s): a killed supervisor may leave processes",
			sv->spec.name, strerror(-r));
		return str_set(&sv->status.isolation, "death-signal");
	}
	r = str_set(&sv->status.isolation, "pid-namespace");
	if (r == 0)
		r = start_namespace_init(sv);
	/* after the maps were written, which needs it: no tracing by the VM's processes of our uid */
	prctl(PR_SET_DUMPABLE, 0);
	return r;
}

static void undo_namespace(struct sv *sv)
{
	sv->life_fd = fd_close(sv->life_fd);
	sv_child_finish(&sv->namespace_child);
}

static int do_vsockd(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	return sv->vsockd.dialed_fd >= 0 ? sv_dialed_begin(sv) : sv_vsockd_start(sv);
}

static void undo_vsockd(struct sv *sv)
{
	sv_dialed_finish(sv);
	sv_vsockd_finish(sv);
}

static int do_network(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	return sv_net_start(sv, step, ret_reason);
}

static const struct {
	int (*run)(struct sv *sv, const struct vm_step *step, char **ret_reason);
	void (*undo)(struct sv *sv);
} table[] = {
	[VM_STEP_LEASES] = { do_leases, undo_nothing },
	[VM_STEP_LAYERS] = { do_layers, undo_layers },
	[VM_STEP_VOLUMES] = { do_volumes, undo_layers },
	[VM_STEP_KERNEL] = { do_kernel, undo_kernel },
	[VM_STEP_INITRAMFS] = { do_initramfs, undo_initramfs },
	[VM_STEP_SOCKETS] = { do_sockets, undo_sockets },
	[VM_STEP_NAMESPACE] = { do_namespace, undo_namespace },
	[VM_STEP_VSOCKD] = { do_vsockd, undo_vsockd },
	[VM_STEP_SERVICES] = { sv_broker_start, sv_broker_stop },
	[VM_STEP_NETWORK] = { do_network, sv_net_stop },
	[VM_STEP_VMM] = { sv_vmm_start, sv_vmm_stop },
	[VM_STEP_BOOT] = { sv_vmm_boot, undo_nothing },
};
static_assert(ARRAY_SIZE(table) == VM_STEP_MAX, "every step can be done and undone");

static void trace_step(struct sv *sv, const struct vm_step *step)
{
	CLEANUP_FREE char *line = vm_step_print(step);

	if (line && sv->trace_fd >= 0)
		dprintf(sv->trace_fd, "%s\n", line);
}

int sv_steps_do(struct sv *sv, char **ret_reason)
{
	for (size_t i = 0; i < sv->plan.n_steps; i++) {
		const struct vm_step *step = &sv->plan.steps[i];
		CLEANUP_FREE char *detail = NULL;
		int r;

		/* counted before: a step that fails half-way is undone too */
		sv->steps_done = i + 1;
		trace_step(sv, step);
		r = table[step->id].run(sv, step, &detail);
		if (r >= 0)
			continue;
		*ret_reason = detail ? TAKE_PTR(detail)
				     : str_printf("step \"%s\" failed: %s", vm_step_name(step->id),
					       strerror(-r));
		return r;
	}
	return 0;
}

void sv_steps_undo(struct sv *sv)
{
	while (sv->steps_done > 0) {
		sv->steps_done--;
		table[sv->plan.steps[sv->steps_done].id].undo(sv);
	}
}
