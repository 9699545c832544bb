/* The host: directories, memory, namespaces, limits, kernel features. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "cleanup.h"
#include "doctor-probe.h"
#include "doctor.h"
#include "fd.h"
#include "file.h"
#include "sandbox.h"
#include "str.h"
#include "vm-dirs.h"

#define MIB          (UINT64_C(1) << 20)
#define STATE_MIB    2048       /* room for a Debian image and what building it needs */
#define RUNTIME_MIB  16         /* of one VM: four logs of two segments, and small files */
#define MEMORY_MIB   768        /* a guest of the default size, and its VMM */
#define FILES_NEEDED 4096       /* the limit that the supervisor gives to VMM and vsock device */
#define TRY_UID      0x70000000 /* the first of the uids for VMs (vm-lease.c) */

static void look_place(
	const char *path, uint64_t want_mib, const char *variable, struct doctor_finding *f)
{
	CLEANUP_FREE char *remedy = str_printf("make room, or set %s to another place", variable);
	struct statvfs v;
	uint64_t mib;

	if (access(path, W_OK | X_OK) < 0 || statvfs(path, &v) < 0) {
		doctor_found(f, DOCTOR_MISSING, remedy, "%s: %m", path);
		return;
	}
	mib = (uint64_t)v.f_bavail * v.f_frsize / MIB;
	doctor_found(f, mib < want_mib ? DOCTOR_WARNING : DOCTOR_OK, mib < want_mib ? remedy : NULL,
		"%s, %llu MiB free", path, (unsigned long long)mib);
}

static void look_directories(const struct doctor_host *host, struct doctor_finding *f)
{
	if (host->dirs)
		doctor_found(f, DOCTOR_OK, NULL, "state and runtime directory can be used");
	else
		doctor_found(f, DOCTOR_MISSING,
			host->dirs_error == -EPERM
				? "make both belong to you, writable by nobody else"
				: "set UVMS_STATE_DIR and UVMS_RUNTIME_DIR to places where you "
				  "may write",
			"the state or the runtime directory cannot be used: %s",
			strerror(-host->dirs_error));
}

static void look_state(const struct doctor_host *host, struct doctor_finding *f)
{
	if (host->dirs)
		look_place(host->dirs->state, STATE_MIB, "UVMS_STATE_DIR", f);
	else
		doctor_found(f, DOCTOR_MISSING, NULL, "see directories");
}

static void look_runtime(const struct doctor_host *host, struct doctor_finding *f)
{
	if (host->dirs)
		look_place(host->dirs->runtime, RUNTIME_MIB, "UVMS_RUNTIME_DIR", f);
	else
		doctor_found(f, DOCTOR_MISSING, NULL, "see directories");
}

static void look_memory(const struct doctor_host *host, struct doctor_finding *f)
{
	CLEANUP_FREE char *text = NULL;
	unsigned long long kib = 0;
	const char *line;

	if (file_read_at(AT_FDCWD, "/proc/meminfo", 65536, &text, NULL) == 0) {
		line = strstr(text, "MemAvailable:");
		if (line)
			sscanf(line + strlen("MemAvailable:"), "%llu", &kib);
	}
	if (kib == 0)
		doctor_found(f, DOCTOR_WARNING, "mount /proc",
			"/proc/meminfo does not tell what is available");
	else
		doctor_found(f, kib / 1024 < MEMORY_MIB ? DOCTOR_WARNING : DOCTOR_OK,
			kib / 1024 < MEMORY_MIB ? "use less --memory, or stop something" : NULL,
			"%llu MiB available", kib / 1024);
}

static int write_text(const char *path, const char *text)
{
	CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return fd < 0 ? -errno : fd_write_all(fd, text, strlen(text));
}

/* As the supervisor does it for an ordinary user. */
static int try_user_namespace(void)
{
	char map[64];

	snprintf(map, sizeof map, "%u %u 1\n", geteuid(), geteuid());
	if (unshare(CLONE_NEWUSER) < 0)
		return -errno;
	return write_text("/proc/self/uid_map", map);
}

static int try_pid_namespace(void)
{
	int r = geteuid() == 0 ? 0 : try_user_namespace();

	return r < 0 ? r : unshare(CLONE_NEWPID) < 0 ? -errno : 0;
}

static int try_net_namespace(void)
{
	int r = geteuid() == 0 ? 0 : try_user_namespace();

	return r < 0 ? r : unshare(CLONE_NEWNET | CLONE_NEWIPC) < 0 ? -errno : 0;
}

static int try_own_uid(void)
{
	return setresuid(TRY_UID, TRY_UID, TRY_UID) < 0 ? -errno : 0;
}

static const char *namespace_remedy(const struct doctor_host *host)
{
	char value = '1';
	CLEANUP_CLOSE int fd =
		open("/proc/sys/kernel/unprivileged_userns_clone", O_RDONLY | O_CLOEXEC);

	if (host->is_root)
		return "run uvms outside this container, or give it CAP_SYS_ADMIN";
	if (fd >= 0 && read(fd, &value, 1) == 1 && value == '0')
		return "sysctl kernel.unprivileged_userns_clone=1";
	return "allow user namespaces (sysctl user.max_user_namespaces; with AppArmor "
	       "kernel.apparmor_restrict_unprivileged_userns=0)";
}

static void look_isolation(const struct doctor_host *host, struct doctor_finding *f)
{
	int pid = doctor_probe_in_child(try_pid_namespace);
	int net = doctor_probe_in_child(try_net_namespace);
	int uid = host->is_root ? doctor_probe_in_child(try_own_uid) : 0;

	if (uid < 0)
		doctor_found(f, DOCTOR_MISSING,
			"run uvms where all uids are mapped, or as an ordinary user",
			"root cannot become uid %u, as each VM's processes must: %s", TRY_UID,
			strerror(-uid));
	else if (pid < 0)
		doctor_found(f, DOCTOR_WARNING, namespace_remedy(host),
			"no PID namespace (%s): parent-death signals end a killed VM's processes",
			strerror(-pid));
	else if (net < 0)
		doctor_found(f, DOCTOR_WARNING, namespace_remedy(host),
			"PID namespace%s, but no network namespace: %s",
			host->is_root ? ", own uid" : " in a user namespace", strerror(-net));
	else
		doctor_found(f, DOCTOR_OK, NULL, "%s",
			host->is_root ? "PID and network namespace, own uid for each VM"
				      : "PID and network namespace in a user namespace; all VMs "
					"run as your uid");
}

static void look_seccomp(const struct doctor_host *host, struct doctor_finding *f)
{
	CLEANUP_FREE char *actions = NULL;

	/* an old kernel has no such file; then only the mode can be asked */
	if (file_read_at(AT_FDCWD, "/proc/sys/kernel/seccomp/actions_avail", 4096, &actions,
		    NULL) == 0 &&
		strstr(actions, "kill_process"))
		doctor_found(f, DOCTOR_OK, NULL, "filters can kill the process");
	else if (prctl(PR_GET_SECCOMP) >= 0)
		doctor_found(f, DOCTOR_WARNING, NULL,
			"the kernel has seccomp, but does not tell which actions it has");
	else
		doctor_found(f, DOCTOR_MISSING, "run a kernel with CONFIG_SECCOMP_FILTER",
			"no seccomp: uvms-vsockd and QEMU refuse to run without their filters");
}

static void look_landlock(const struct doctor_host *host, struct doctor_finding *f)
{
	int abi = sandbox_landlock_abi();

	if (abi > 0)
		doctor_found(f, DOCTOR_OK, NULL, "ABI %d%s", abi,
			abi < 3 ? "; Cloud Hypervisor needs 3 (Linux 6.2) to confine itself" : "");
	else
		doctor_found(f, DOCTOR_OK, NULL,
			"none; Cloud Hypervisor needs it (Linux 6.2) to confine itself");
}

static void look_files(const struct doctor_host *host, struct doctor_finding *f)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0)
		doctor_found(f, DOCTOR_WARNING, NULL, "the limit cannot be read: %m");
	else if (l.rlim_max < FILES_NEEDED)
		doctor_found(f, DOCTOR_WARNING,
			"raise the hard limit of open files (ulimit -Hn, limits.conf) to 4096",
			"at most %llu open files: fewer than 1023 vsock connections a VM",
			(unsigned long long)l.rlim_max);
	else
		doctor_found(f, DOCTOR_OK, NULL, "at most %llu", (unsigned long long)l.rlim_max);
}

static void look_cgroup(const struct doctor_host *host, struct doctor_finding *f)
{
	doctor_found(f, DOCTOR_OK, NULL, "%s",
		access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0
			? "cgroup v2"
			: "no cgroup v2; uvms itself needs none");
}

static void look_systemd(const struct doctor_host *host, struct doctor_finding *f)
{
	doctor_found(f, DOCTOR_OK, NULL, "%s",
		access("/run/systemd/system", F_OK) == 0
			? "it is process 1: uvms@NAME.service can start a VM as root"
			: "it is not process 1: VMs are started by uvms alone");
}

const struct doctor_check doctor_host_checks[] = {
	{ "isolation", look_isolation },
	{ "directories", look_directories },
	{ "state", look_state },
	{ "runtime", look_runtime },
	{ "memory", look_memory },
	{ "open files", look_files },
	{ "seccomp", look_seccomp },
	{ "landlock", look_landlock },
	{ "cgroups", look_cgroup },
	{ "systemd", look_systemd },
	{ 0 },
};
