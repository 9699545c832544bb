#include "sv-plan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "path.h"
#include "str.h"
#include "sv-broker.h"
#include "sv-choose.h"
#include "sv-net.h"
#include "sv-snapshot.h"
#include "sv.h"
#include "vm-name.h"

static int plan_image(struct sv *sv, char **ret_reason, char **ret_next)
{
	CLEANUP_FREE char *detail = NULL;
	int r;

	r = store_find_image(sv->store, sv->spec.image, &sv->image, &detail);
	if (r == -ENOENT) {
		*ret_reason = str_printf("there is no image \"%s\"", sv->spec.image);
		*ret_next = strdup("uvms image ls shows what there is; uvms image pull and uvms "
				   "image build get more");
	} else if (r < 0) {
		*ret_reason = str_printf("image \"%s\" cannot be used: %s", sv->spec.image,
			detail ? detail : strerror(-r));
		*ret_next = strdup("uvms image rm it and build it again");
	}
	return r < 0 ? r : str_set(&sv->status.image_digest, sv->image.digest);
}

static int plan_kernel(struct sv *sv, char **ret_reason, char **ret_next)
{
	CLEANUP_FREE char *detail = NULL;
	int r;

	r = store_find_kernel(sv->store, sv->spec.kernel, &sv->kernel, &detail);
	if (r >= 0)
		return str_set(&sv->status.kernel_digest, sv->kernel.digest);
	*ret_reason = r == -ENOENT
			      ? str_printf("there is no kernel%s%s", sv->spec.kernel ? " " : "",
					str_or(sv->spec.kernel, ""))
			      : str_printf("the kernel cannot be used: %s",
					detail ? detail : strerror(-r));
	*ret_next = strdup("uvms kernel add --from-deb, or another way of uvms-kernel in uvms(1)");
	return r;
}

static int plan_add_leases(struct sv *sv)
{
	char **args = NULL;
	int r = 0;

	r |= strv_push(&args, "cid");
	if (geteuid() == 0)
		r |= strv_push(&args, "uid");
	r |= vm_plan_add_consume(&sv->plan, VM_STEP_LEASES, args);
	return r < 0 ? -ENOMEM : 0;
}

static int plan_add_layers(struct sv *sv)
{
	char **args = NULL;
	int r = 0;

	for (size_t i = 0; sv->image.layers[i]; i++)
		r |= strv_pushf(&args, "layer%zu=%s", i, sv->image.layers[i]);
	r |= vm_plan_add_consume(&sv->plan, VM_STEP_LAYERS, args);
	return r < 0 ? -ENOMEM : 0;
}

static int plan_add_volumes(struct sv *sv, char **ret_reason)
{
	char **args = NULL;
	int r = 0;

	if (!sv->spec.volumes)
		return 0;
	if (strv_length(sv->image.layers) + strv_length(sv->spec.volumes) > VMM_DISKS_MAX) {
		*ret_reason = str_printf("%zu layers and %zu volumes: at most %d disks",
			strv_length(sv->image.layers), strv_length(sv->spec.volumes),
			VMM_DISKS_MAX);
		return -EINVAL;
	}
	for (size_t i = 0; sv->spec.volumes[i]; i++)
		r |= strv_pushf(&args, "volume%zu=%s", i, sv->spec.volumes[i]);
	r |= vm_plan_add_consume(&sv->plan, VM_STEP_VOLUMES, args);
	return r < 0 ? -ENOMEM : 0;
}

static int plan_add_kernel(struct sv *sv)
{
	char **args = NULL;
	int r = 0;

	r |= strv_push(&args, sv->kernel.kernel);
	r |= vm_plan_add_consume(&sv->plan, VM_STEP_KERNEL, args);
	return r < 0 ? -ENOMEM : 0;
}

static int plan_add_initramfs(struct sv *sv, char **ret_reason)
{
	CLEANUP_FREE char *guest = NULL;
	char **args = NULL;
	int r = 0;

	if (path_find_helper("uvms-guest", &guest) < 0) {
		*ret_reason = strdup("the helper uvms-guest is not installed");
		return -ENOENT;
	}
	r |= strv_pushf(&args, "modules=%s", sv->kernel.modules);
	r |= strv_pushf(&args, "init=%s", guest);
	r |= strv_pushf(
		&args, "boot=%s", sv->spec.command || sv->spec.attached ? "command" : "init");
	r |= vm_plan_add_consume(&sv->plan, VM_STEP_INITRAMFS, args);
	return r < 0 ? -ENOMEM : 0;
}

static int plan_add_words(struct sv *sv, enum vm_step_id id, const char *const *words)
{
	char **args = NULL;
	int r = 0;

	for (; *words; words++)
		r |= strv_push(&args, *words);
	r |= vm_plan_add_consume(&sv->plan, id, args);
	return r < 0 ? -ENOMEM : 0;
}

/* {cid} is known once it is leased. */
static int plan_vsockd_arguments(const struct sv *sv, const char *program, char ***args)
{
	static const char *const fixed[] = { "--cid", "{cid}", "--vhost-fd", "3", "--listen-fd",
		"4", "--table-fd", "5", "--keeper-fd", "6", "--state-fd", "7", "--path",
		VMM_VSOCK_SOCKET };
	int r = 0;

	r |= strv_push(args, program);
	r |= strv_push(args, "--name");
	r |= strv_push(args, sv->spec.name);
	for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
		r |= strv_push(args, fixed[i]);
	/* nothing else but such a VMM's memory is taken unsealed */
	if (vmm_backend_caps(sv->backend) & VMM_CAP_VSOCK_DIALS)
		r |= strv_push(args, "--may-shrink");
	return r < 0 ? -ENOMEM : 0;
}

static int plan_add_vsockd(struct sv *sv, char **ret_reason)
{
	CLEANUP_FREE char *program = NULL;
	char **args = NULL;
	int r;

	if (path_find_helper("uvms-vsockd", &program) < 0) {
		*ret_reason = strdup("the helper uvms-vsockd is not installed");
		return -ENOENT;
	}
	r = plan_vsockd_arguments(sv, program, &args);
	r |= vm_plan_add_consume(&sv->plan, VM_STEP_VSOCKD, args);
	return r < 0 ? -ENOMEM : 0;
}

int sv_plan_renew_vsockd(struct sv *sv)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP(strv_freep) char **args = NULL;
	int r = path_find_helper("uvms-vsockd", &program);

	if (r == 0)
		r = plan_vsockd_arguments(sv, program, &args);
	for (size_t i = 0; r == 0 && i < sv->plan.n_steps; i++) {
		struct vm_step *step = &sv->plan.steps[i];

		if (step->id != VM_STEP_VSOCKD)
			continue;
		strv_free(step->args);
		step->args = TAKE_PTR(args);
	}
	return r;
}

/*
 * no_timer_check and tsc_early_khz: emulated guests that start side by side get stuck in timer
 * calibration without them. The self-tests of the kernel's ciphers and the search for RAID members are
 * a tenth of an emulated start. The getty would wait 90 s for a device unit that never comes without udev.
 */
static char *plan_cmdline(struct sv *sv)
{
	bool tcg = str_eq(sv->status.accel, "tcg"), init = !sv->spec.command && !sv->spec.attached;
	char tsc[64] = "";

	if (tcg && sv->accel.tsc_khz)
		snprintf(tsc, sizeof tsc, " tsc_early_khz=%llu",
			(unsigned long long)sv->accel.tsc_khz);
	return str_printf("console=ttyS0 loglevel=4 panic=-1 cryptomgr.notests "
			  "raid=noautodetect%s%s%s%s%s%s%s",
		tsc, tcg ? " no_timer_check" : "",
		sv->spec.memory_max_bytes ? " memhp_default_state=online" : "",
		vm_spec_has_network(&sv->spec) ? " net.ifnames=0" : "",
		init && !sv->spec.getty ? " systemd.getty_auto=no TERM=dumb" : "",
		init ? " systemd.hostname=" : "", init ? sv->spec.name : "");
}

static void plan_uuid(const char *name, char out[static 37])
{
	char id[33];

	vm_name_id("uuid", name, id);
	snprintf(out, 37, "%.8s-%.4s-%.4s-%.4s-%.12s", id, id + 8, id + 12, id + 16, id + 20);
}

/* What systemd ≥ 254 takes from SMBIOS (systemd.system-credentials(7)); the agent serves older ones. */
static int plan_credentials(struct sv *sv, char ***ret)
{
	char id[33];
	int r = 0;

	if (sv->spec.command || sv->spec.attached)
		return 0;
	vm_name_id("machine-id", sv->spec.name, id);
	r |= strv_pushf(ret, "io.systemd.credential:system.hostname=%s", sv->spec.name);
	r |= strv_pushf(ret, "io.systemd.credential:system.machine_id=%s", id);
	return r < 0 ? -ENOMEM : 0;
}

/* Layers first, then the volumes. */
static void plan_disks(const struct sv *sv, struct vmm_disk disks[static VMM_DISKS_MAX])
{
	size_t layers = strv_length(sv->image.layers), volumes = strv_length(sv->spec.volumes);

	for (size_t i = 0; i < layers + volumes && i < VMM_DISKS_MAX; i++) {
		bool is_layer = i < layers;

		snprintf(disks[i].serial, sizeof disks[i].serial, "%s%zu",
			is_layer ? "layer" : "volume", is_layer ? i : i - layers);
		disks[i].read_only = is_layer;
	}
}

static int plan_add_boot(struct sv *sv, const struct vmm_config *c)
{
	char **calls = NULL;
	int r = vmm_calls(sv->backend, c, &calls);

	return r < 0 || !calls ? r : vm_plan_add_consume(&sv->plan, VM_STEP_BOOT, calls);
}

static int plan_add_vmm(struct sv *sv, char **ret_reason)
{
	CLEANUP_FREE char *cmdline = plan_cmdline(sv);
	CLEANUP(strv_freep) char **dirs = NULL;
	struct vmm_disk disks[VMM_DISKS_MAX] = { 0 };
	CLEANUP(strv_freep) char **credentials = NULL;
	char **argv = NULL, uuid[37], mac[18];
	struct vmm_config c = {
		.name = sv->spec.name,
		.uuid = uuid,
		.accel = sv->status.accel,
		.cpu_model = sv->spec.cpu_model,
		.kernel_cmdline = cmdline,
		.disks = disks,
		.n_disks = strv_length(sv->image.layers) + strv_length(sv->spec.volumes),
		.memory_bytes = sv->spec.memory_bytes,
		.memory_max_bytes = sv->spec.memory_max_bytes,
		.cpus = sv->spec.cpus,
		.cpus_max = sv->spec.cpus_max,
		.hotplug_slots = sv->spec.hotplug_slots,
		.version = sv->vmm_version,
		.vsock_device = sv_choose_vsockd(sv),
		.landlock = sv_choose_landlock(sv),
		.restore = sv->restore_path,
		.on_demand = sv->restore && str_has_prefix(sv->status.restored, "on demand"),
		.reboot_ends = sv->spec.command || sv->spec.attached,
	};
	int r;

	if (!cmdline)
		return -ENOMEM;
	r = plan_credentials(sv, &credentials);
	if (r < 0)
		return r;
	c.oem_strings = (const char *const *)credentials;
	plan_uuid(sv->spec.name, uuid);
	plan_disks(sv, disks);
	r = c.landlock ? sv_choose_landlock_dirs(sv, &dirs) : 0;
	if (r < 0)
		return r;
	c.landlock_dirs = (const char *const *)dirs;
	if (vm_spec_has_network(&sv->spec)) {
		sv_net_mac(sv->spec.name, mac);
		c.net_mac = mac;
	}
	r = vmm_check(sv->backend, &c, ret_reason);
	if (r < 0)
		return r;
	r = vmm_command(sv->backend, &c, &argv);
	if (r == 0)
		r = vm_plan_add_consume(&sv->plan, VM_STEP_VMM, argv);
	return r < 0 ? r : plan_add_boot(sv, &c);
}

static int plan_restore(struct sv *sv)
{
	const char *reason = NULL;

	sv->status.restored = sv_choose_on_demand(sv, &reason)
				      ? strdup("on demand: memory is read as the guest needs it")
				      : str_printf("copied: %s", reason);
	return sv->status.restored ? str_set(&sv->status.snapshot, sv->restore) : -ENOMEM;
}

int sv_plan_build(struct sv *sv, char **ret_reason, char **ret_next)
{
	static const char *const sockets[] = { "control", "vsock/v", "vsock/v_1023", NULL };
	static const char *const namespace[] = { "pid", NULL };
	int r;

	r = sv->restore ? sv_snapshot_load(sv, ret_reason) : 0;
	if (r == 0)
		r = sv_choose(sv, ret_reason, ret_next);
	if (r == 0 && sv->restore)
		r = plan_restore(sv);
	if (r == 0)
		r = plan_image(sv, ret_reason, ret_next);
	if (r == 0)
		r = plan_kernel(sv, ret_reason, ret_next);
	if (r == 0)
		r = plan_add_leases(sv);
	if (r == 0)
		r = plan_add_layers(sv);
	if (r == 0)
		r = plan_add_volumes(sv, ret_reason);
	if (r == 0)
		r = plan_add_kernel(sv);
	if (r == 0)
		r = plan_add_initramfs(sv, ret_reason);
	if (r == 0)
		r = plan_add_words(sv, VM_STEP_SOCKETS, sockets);
	if (r == 0)
		r = plan_add_words(sv, VM_STEP_NAMESPACE, namespace);
	if (r == 0 && sv_choose_vsockd(sv))
		r = plan_add_vsockd(sv, ret_reason);
	if (r == 0)
		r = sv_broker_plan(sv, ret_reason);
	if (r == 0)
		r = sv_net_plan(sv, ret_reason, ret_next);
	if (r == 0)
		r = plan_add_vmm(sv, ret_reason);
	return r;
}
