#include "sv-choose.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "sandbox.h"
#include "str.h"
#include "sv-lend.h"
#include "sv.h"

/* The best one first. */
static const char *const preference[] = { "ch", "qemu" };

/* Whether the VM's own user, not only root, may open /dev/kvm. */
static bool kvm_is_open_to_vms(void)
{
	struct stat st;

	return geteuid() != 0 || (stat("/dev/kvm", &st) == 0 && (st.st_mode & 0060) == 0060);
}

static void look_at_kvm(struct sv *sv)
{
	accel_get(&sv->dirs, &sv->accel);
	if (!sv->accel.kvm || kvm_is_open_to_vms())
		return;
	sv->accel.kvm = false;
	snprintf(sv->accel.reason, sizeof sv->accel.reason,
		"/dev/kvm works, but is closed to its group: VMs do not run as root");
}

static bool may_emulate(const struct sv *sv)
{
	return !str_eq(sv->spec.accel, "kvm");
}

static bool may_use_kvm(const struct sv *sv)
{
	return sv->accel.kvm && !str_eq(sv->spec.accel, "tcg");
}

/* What a missing program is called in Debian. */
static char *how_to_get(const char *backend)
{
	if (str_eq(backend, "ch"))
		return strdup("put cloud-hypervisor (best is v53) on the PATH, or name it in "
			      "$UVMS_CLOUD_HYPERVISOR");
	return strdup("apt install qemu-system-x86");
}

/* What was asked for by name and NAME has not at all; or NULL. */
static char *lacks(const struct sv *sv, const char *name, unsigned caps, const char **ret_next)
{
	bool vmm = str_eq(sv->spec.vsock, "vmm"), uvms = str_eq(sv->spec.vsock, "uvms");

	*ret_next = "--backend=qemu has CPU models";
	if (sv->spec.cpu_model && !(caps & VMM_CAP_CPU_MODEL))
		return str_printf("back-end %s: --cpu-model is not supported", name);
	*ret_next = "without --vsock it takes the one that it has";
	if ((vmm && !(caps & VMM_CAP_VSOCK_HYBRID)) || (uvms && !(caps & VMM_CAP_VSOCK_DEVICE)))
		return str_printf("--vsock=%s: not supported by back-end %s", sv->spec.vsock, name);
	return NULL;
}

bool sv_choose_vsockd(const struct sv *sv)
{
	unsigned caps = vmm_backend_caps(sv->backend);

	if (str_eq(sv->spec.vsock, "uvms"))
		return true;
	return (caps & VMM_CAP_VSOCK_DEVICE) && !(caps & VMM_CAP_VSOCK_HYBRID);
}

/* 0: NAME can be used and is set; else why not. */
static int try_backend(struct sv *sv, const char *name, char **ret_reason, char **ret_next)
{
	const struct vmm_backend *b = vmm_backend_find(name);
	CLEANUP_FREE char *program = NULL;
	const char *next;
	bool kvm, tcg;
	int r;

	if (!b) {
		*ret_reason = str_printf("back-end \"%s\": not supported yet", name);
		return -EOPNOTSUPP;
	}
	*ret_reason = lacks(sv, name, vmm_backend_caps(b), &next);
	if (*ret_reason) {
		*ret_next = strdup(next);
		return -EOPNOTSUPP;
	}
	if (vmm_backend_program(b, &program) < 0) {
		*ret_reason = str_printf("the program of back-end %s is not installed", name);
		*ret_next = how_to_get(name);
		return -ENOENT;
	}
	kvm = may_use_kvm(sv) && (vmm_backend_caps(b) & VMM_CAP_KVM);
	tcg = may_emulate(sv) && (vmm_backend_caps(b) & VMM_CAP_TCG);
	if (!kvm && !tcg) {
		*ret_reason = str_printf("back-end %s needs KVM: %s", name,
			may_use_kvm(sv) || !sv->accel.kvm ? sv->accel.reason
							  : "emulation was asked for");
		*ret_next = strdup("uvms doctor explains it; --backend=auto --accel=auto emulates");
		return -EOPNOTSUPP;
	}
	r = vmm_backend_version(b, &sv->dirs, program, &sv->vmm_version, ret_reason);
	if (r < 0) {
		*ret_next = how_to_get(name);
		return r;
	}
	sv->backend = b;
	r = str_set(&sv->status.backend, name);
	if (r == 0)
		r = str_set(&sv->status.vsock, sv_choose_vsockd(sv) ? "uvms" : "vmm");
	return r < 0 ? r : str_set(&sv->status.accel, kvm ? "kvm" : "tcg");
}

/* What was passed over is no error, but is told. */
static int choose_best(struct sv *sv, char **ret_reason, char **ret_next)
{
	CLEANUP_FREE char *passed = NULL;
	int r = -ENOENT;

	for (size_t i = 0; i < ARRAY_SIZE(preference); i++) {
		CLEANUP_FREE char *why = NULL;

		free(TAKE_PTR(*ret_reason));
		free(TAKE_PTR(*ret_next));
		r = try_backend(sv, preference[i], ret_reason, ret_next);
		if (r != -ENOENT && r != -EOPNOTSUPP)
			break;
		why = str_printf(
			"%s%s%s", str_or(passed, ""), passed ? "; " : "", str_or(*ret_reason, "?"));
		free(passed);
		passed = TAKE_PTR(why);
	}
	return r < 0 ? r : str_set(&sv->status.backend_reason, str_or(passed, "the first choice"));
}

bool sv_choose_landlock(const struct sv *sv)
{
	return (vmm_backend_caps(sv->backend) & VMM_CAP_LANDLOCK) &&
	       sandbox_landlock_abi() >= VMM_LANDLOCK_ABI;
}

static const char *const landlock_dirs[] = { "volumes", VM_SNAPSHOTS };

int sv_choose_landlock_dirs(const struct sv *sv, char ***ret)
{
	for (size_t i = 0; i < ARRAY_SIZE(landlock_dirs); i++) {
		int r = strv_pushf(ret, "%s/%s", sv->dirs.state, landlock_dirs[i]);

		if (r < 0)
			return r;
	}
	return strv_pushf(ret, "%s/vms/%s/" SV_LENT, sv->dirs.state, sv->spec.name);
}

int sv_choose_landlock_make(const struct sv *sv)
{
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(landlock_dirs); i++) {
		fd = vm_dirs_open_state(&sv->dirs, landlock_dirs[i]);

		if (fd < 0)
			return fd;
		fd_close(fd);
	}
	fd = sv_lend_open(sv);
	fd_close(fd);
	return fd < 0 ? fd : 0;
}

/* userfaultfd(2): for everybody, or by a device that the VM's own user may open. An ACL for root's VMs is not seen. */
static bool userfaultfd_is_open(void)
{
	CLEANUP_FREE char *everybody = NULL;
	struct stat st, kvm;

	if (file_read_at(AT_FDCWD, "/proc/sys/vm/unprivileged_userfaultfd", 16, &everybody, NULL) ==
			0 &&
		*everybody == '1')
		return true;
	if (geteuid() != 0)
		return access("/dev/userfaultfd", R_OK | W_OK) == 0;
	if (stat("/dev/userfaultfd", &st) < 0)
		return false;
	if ((st.st_mode & 0006) == 0006)
		return true;
	return (st.st_mode & 0060) == 0060 && stat("/dev/kvm", &kvm) == 0 &&
	       kvm.st_gid == st.st_gid;
}

bool sv_choose_on_demand(const struct sv *sv, const char **ret_reason)
{
	if (!vmm_can_restore_on_demand(sv->backend, sv->vmm_version))
		*ret_reason = "the back-end cannot read it on demand";
	else if (sv_choose_vsockd(sv)) /* whose faults the VMM does not see: it would read zeros */
		*ret_reason = "uvms-vsockd reads the guest's memory, too";
	else if (sv_choose_landlock(sv))
		*ret_reason = "the VMM confines itself to its files";
	else if (!userfaultfd_is_open())
		*ret_reason = "/dev/userfaultfd is closed to VMs";
	else
		return true;
	return false;
}

int sv_choose(struct sv *sv, char **ret_reason, char **ret_next)
{
	const char *name = sv->spec.backend;

	look_at_kvm(sv);
	if (str_eq(sv->spec.accel, "kvm") && !sv->accel.kvm) {
		*ret_reason = str_printf("--accel=kvm: %s", sv->accel.reason);
		*ret_next = strdup("uvms doctor explains it; --accel=auto emulates");
		return -EOPNOTSUPP;
	}
	if (!name || str_eq(name, "auto"))
		return choose_best(sv, ret_reason, ret_next);
	return try_backend(sv, name, ret_reason, ret_next);
}
