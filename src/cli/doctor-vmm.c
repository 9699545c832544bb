/* What runs a VM: accelerator, VMM, helpers, kernel. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "accel.h"
#include "ch-version.h"
#include "cleanup.h"
#include "doctor-package.h"
#include "doctor-parse.h"
#include "doctor-probe.h"
#include "doctor.h"
#include "path.h"
#include "store-edit.h"
#include "store.h"
#include "str.h"
#include "vm-dirs.h"
#include "vmm-program.h"

/* The supervisor does not give KVM to a VM whose own user could not open it. */
static bool kvm_is_open_to_vms(const struct doctor_host *host)
{
	struct stat st;

	return !host->is_root || (stat("/dev/kvm", &st) == 0 && (st.st_mode & 0060) == 0060);
}

static void look_accel(const struct doctor_host *host, struct doctor_finding *f)
{
	struct accel a;

	if (host->dirs)
		accel_get(host->dirs, &a);
	else
		accel_probe(&a);
	if (!a.kvm)
		doctor_found(f, DOCTOR_WARNING,
			access("/dev/kvm", F_OK) == 0 && access("/dev/kvm", R_OK | W_OK) < 0
				? "usermod -aG kvm USER, and log in again"
				: NULL,
			"emulation: %s", a.reason);
	else if (!kvm_is_open_to_vms(host))
		doctor_found(f, DOCTOR_WARNING, "chgrp kvm /dev/kvm && chmod 0660 /dev/kvm",
			"emulation: /dev/kvm works, but is closed to its group, and VMs do not "
			"run as root");
	else
		doctor_found(f, DOCTOR_OK, NULL, "KVM: %s", a.reason);
}

static void look_qemu(const struct doctor_host *host, struct doctor_finding *f)
{
	CLEANUP_FREE char *program = NULL, *line = NULL, *remedy = NULL;
	unsigned major, minor;
	int r;

	remedy = doctor_package_remedy("qemu-system-x86_64");
	if (vmm_program_find(VMM_PROGRAM_QEMU, VMM_PROGRAM_QEMU_ENV, &program) < 0) {
		doctor_found(f, DOCTOR_MISSING, remedy, "qemu-system-x86_64 is not installed");
		return;
	}
	r = doctor_probe_line(program, "--version", &line);
	if (r < 0)
		doctor_found(f, DOCTOR_MISSING, remedy, "%s does not tell its version: %s", program,
			strerror(-r));
	else if (!doctor_parse_version(line, &major, &minor))
		doctor_found(f, DOCTOR_WARNING, NULL, "%s: unknown version: %s", program, line);
	else if (major < 7 || (major == 7 && minor < 2))
		doctor_found(f, DOCTOR_MISSING, remedy, "%s is QEMU %u.%u; it must be 7.2 or newer",
			program, major, minor);
	else
		doctor_found(f, DOCTOR_OK, NULL, "QEMU %u.%u (%s)", major, minor, program);
}

/* Not needed, but the first choice: what is told decides whether QEMU takes its place. */
static void look_cloud_hypervisor(const struct doctor_host *host, struct doctor_finding *f)
{
	static const char remedy[] =
		"put cloud-hypervisor, best v53, on the PATH, or name it in $UVMS_CLOUD_HYPERVISOR";
	CLEANUP_FREE char *program = NULL, *line = NULL;
	uint32_t version;
	int r;

	if (vmm_program_find(VMM_PROGRAM_CH, VMM_PROGRAM_CH_ENV, &program) < 0) {
		doctor_found(f, DOCTOR_OK, NULL, "not installed: QEMU runs VMs");
		return;
	}
	r = doctor_probe_line(program, "--version", &line);
	version = r < 0 ? 0 : ch_version_parse(line);
	if (r < 0)
		doctor_found(f, DOCTOR_WARNING, remedy, "%s does not tell its version: %s", program,
			strerror(-r));
	else if (version < CH_VERSION_MIN)
		doctor_found(f, DOCTOR_WARNING, remedy,
			"%s is too old, QEMU runs VMs: it says \"%s\", at least v%d is needed",
			program, line, CH_VERSION_MIN);
	else
		doctor_found(f, DOCTOR_OK, NULL, "Cloud Hypervisor %u (%s)%s", version, program,
			version < CH_VERSION_BEST ? "; v53 is better" : "");
}

static void look_helpers(const struct doctor_host *host, struct doctor_finding *f)
{
	static const char *const helpers[] = { "uvms-supervisor", "uvms-vsockd", "uvms-tapd",
		"uvms-guest", "uvms-init" };
	CLEANUP_FREE char *last = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(helpers); i++) {
		CLEANUP_FREE char *path = NULL;

		if (path_find_helper(helpers[i], &path) < 0) {
			doctor_found(f, DOCTOR_MISSING, "build or install uvms whole",
				"the helper %s is neither beside uvms nor installed", helpers[i]);
			return;
		}
		free(last);
		last = TAKE_PTR(path);
	}
	if (last && strrchr(last, '/'))
		*strrchr(last, '/') = 0;
	doctor_found(f, DOCTOR_OK, NULL,
		"uvms-supervisor, uvms-vsockd, uvms-tapd, uvms-guest and uvms-init in %s",
		str_or(last, "?"));
}

static int open_store(const struct doctor_host *host, struct store **ret)
{
	CLEANUP_CLOSE int state =
		host->dirs ? open(host->dirs->state, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

	return state < 0 ? -ENOENT : store_open(state, ret);
}

static void look_kernel(const struct doctor_host *host, struct doctor_finding *f)
{
	CLEANUP(store_closep) struct store *store = NULL;
	CLEANUP_FREE char *reason = NULL;
	struct store_kernel k = { 0 };
	int r = open_store(host, &store);

	if (r == 0)
		r = store_find_kernel(store, NULL, &k, &reason);
	if (r == 0)
		doctor_found(f, DOCTOR_OK, NULL, "%s (%s)", str_or(k.name, k.digest),
			str_or(k.release, "?"));
	else if (r == -ENOENT)
		doctor_found(f, DOCTOR_MISSING, "uvms kernel add --from-deb",
			"there is no guest kernel in the store");
	else
		doctor_found(f, DOCTOR_MISSING, "uvms kernel add --from-deb",
			"the store's kernel cannot be used: %s", reason ? reason : strerror(-r));
	store_kernel_finish(&k);
}

static void look_images(const struct doctor_host *host, struct doctor_finding *f)
{
	CLEANUP(store_closep) struct store *store = NULL;
	CLEANUP(strv_freep) char **names = NULL;
	CLEANUP_FREE char *reason = NULL;
	int r = open_store(host, &store);

	if (r == 0)
		r = store_edit_list(store, STORE_INDEX_IMAGE, &names, &reason);
	if (r < 0)
		doctor_found(f, DOCTOR_WARNING, NULL, "the store cannot be read: %s",
			reason ? reason : strerror(-r));
	else if (strv_length(names) == 0)
		doctor_found(f, DOCTOR_WARNING, "uvms image build base --from-debian bookworm",
			"there is no image in the store");
	else
		doctor_found(f, DOCTOR_OK, NULL, "%zu in the store", strv_length(names));
}

const struct doctor_check doctor_vmm_checks[] = {
	{ "accelerator", look_accel },
	{ "cloud-hypervisor", look_cloud_hypervisor },
	{ "qemu", look_qemu },
	{ "helpers", look_helpers },
	{ "kernel", look_kernel },
	{ "images", look_images },
	{ 0 },
};
