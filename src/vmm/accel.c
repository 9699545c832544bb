#include "accel.h"

#include <cpuid.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "cleanup.h"
#include "clock.h"
#include "file.h"
#include "str.h"
#include "vm-dirs.h"

#define ACCEL_TICK_USEC  2000
#define ACCEL_GUEST_SIZE 4096
#define CPUID_1_ECX_VMX  (1u << 5) /* Intel SDM vol. 2A, CPUID */
#define CPUID_X_ECX_SVM  (1u << 2) /* AMD APM vol. 3, leaf 8000_0001h */

/* How long the test loop may take. */
struct accel_limit {
	uint64_t cpu_usec;
	uint64_t wall_usec; /* however busy the host is */
};

/*
 * A CPU that has VMX or SVM is believed for longer: it may be an emulated one whose own host is busy, which nothing
 * in here can see (its CPU time counts ours and that of others alike).
 */
static const struct accel_limit limit_bare = { 20000, 250000 };
static const struct accel_limit limit_flagged = { 200000, 2000000 };

/* mov ecx, 40000; again: dec ecx; jnz again; hlt — 16-bit real mode */
static const uint8_t accel_guest[] = { 0x66, 0xb9, 0x40, 0x9c, 0x00, 0x00, 0x66, 0x49, 0x75, 0xfc,
	0xf4 };

struct accel_vm {
	int kvm, vm, vcpu;   /* owned */
	void *memory;        /* owned: ACCEL_GUEST_SIZE */
	struct kvm_run *run; /* owned: run_size */
	size_t run_size;
};

static void accel_vm_finish(struct accel_vm *v)
{
	if (v->run)
		munmap(v->run, v->run_size);
	if (v->memory)
		munmap(v->memory, ACCEL_GUEST_SIZE);
	if (v->vcpu >= 0)
		close(v->vcpu);
	if (v->vm >= 0)
		close(v->vm);
	if (v->kvm >= 0)
		close(v->kvm);
}

/* Maps with failure as NULL. */
static void *accel_map(size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int accel_vm_registers(struct accel_vm *v)
{
	struct kvm_regs regs = { .rflags = 2 };
	struct kvm_sregs sregs;

	if (ioctl(v->vcpu, KVM_GET_SREGS, &sregs) < 0)
		return -errno;
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(v->vcpu, KVM_SET_SREGS, &sregs) < 0)
		return -errno;
	return ioctl(v->vcpu, KVM_SET_REGS, &regs) < 0 ? -errno : 0;
}

static int accel_vm_make(struct accel_vm *v)
{
	struct kvm_userspace_memory_region region = { .memory_size = ACCEL_GUEST_SIZE };
	int size;

	v->vm = ioctl(v->kvm, KVM_CREATE_VM, 0);
	if (v->vm < 0)
		return -errno;
	v->memory = accel_map(ACCEL_GUEST_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!v->memory)
		return -ENOMEM;
	memcpy(v->memory, accel_guest, sizeof accel_guest);
	region.userspace_addr = (uintptr_t)v->memory;
	if (ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return -errno;
	v->vcpu = ioctl(v->vm, KVM_CREATE_VCPU, 0);
	if (v->vcpu < 0)
		return -errno;
	size = ioctl(v->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < (int)sizeof *v->run)
		return -EIO;
	v->run_size = (size_t)size;
	v->run = accel_map(v->run_size, MAP_SHARED, v->vcpu);
	if (!v->run)
		return -ENOMEM;
	return accel_vm_registers(v);
}

static const struct accel_limit *accel_limit(void)
{
	unsigned a, b, c = 0, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && c & CPUID_1_ECX_VMX)
		return &limit_flagged;
	if (__get_cpuid(0x80000001, &a, &b, &c, &d) && c & CPUID_X_ECX_SVM)
		return &limit_flagged;
	return &limit_bare;
}

static void accel_on_alarm(int signo)
{
}

/*
 * 0 with the time to HLT, -ETIME when the limit came first. CPU time counts, a guest's included: a busy
 * host must not make good hardware look bad.
 */
static int accel_vm_time(struct accel_vm *v, const struct accel_limit *limit, uint64_t *ret_usec)
{
	/*
	 * Not before the limit: where each exit of the guest costs milliseconds (nested in an emulated
	 * host), ticks would eat the time. It repeats, for an alarm just before the ioctl.
	 */
	struct itimerval tick = { { 0, ACCEL_TICK_USEC }, { 0, (suseconds_t)limit->cpu_usec } },
			 off = { 0 };
	struct sigaction act = { .sa_handler = accel_on_alarm }, old;
	uint64_t wall = clock_usec(CLOCK_MONOTONIC);
	uint64_t cpu = clock_usec(CLOCK_THREAD_CPUTIME_ID);
	int r = 0;

	sigaction(SIGALRM, &act, &old);
	setitimer(ITIMER_REAL, &tick, NULL);
	do {
		if (clock_usec(CLOCK_THREAD_CPUTIME_ID) - cpu >= limit->cpu_usec ||
			clock_usec(CLOCK_MONOTONIC) - wall >= limit->wall_usec)
			r = -ETIME;
		else if (ioctl(v->vcpu, KVM_RUN, 0) < 0 && errno != EINTR)
			r = -errno;
		else if (v->run->exit_reason == KVM_EXIT_HLT)
			break;
		else if (v->run->exit_reason != KVM_EXIT_INTR)
			r = -EIO;
	} while (r == 0);
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &old, NULL);
	*ret_usec = clock_usec(CLOCK_THREAD_CPUTIME_ID) - cpu;
	return r;
}

static int accel_probe_kvm(struct accel *a)
{
	CLEANUP(accel_vm_finish) struct accel_vm v = { .kvm = -1, .vm = -1, .vcpu = -1 };
	int r;

	v.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (v.kvm < 0)
		return -errno;
	if (ioctl(v.kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION)
		return -EPROTO;
	r = accel_vm_make(&v);
	if (r < 0)
		return r == -EACCES || r == -ENOENT ? -EIO : r;
	return accel_vm_time(&v, accel_limit(), &a->loop_usec);
}

static void accel_explain(struct accel *a, int r)
{
	switch (r) {
	case 0:
		snprintf(a->reason, sizeof a->reason,
			"KVM runs guests at full speed (test loop: %llu us)",
			(unsigned long long)a->loop_usec);
		break;
	case -ETIME:
		snprintf(a->reason, sizeof a->reason,
			"/dev/kvm answers, but a test loop did not end in %llu ms: a software KVM, "
			"useless for a stock guest",
			(unsigned long long)accel_limit()->cpu_usec / 1000);
		break;
	case -ENOENT: snprintf(a->reason, sizeof a->reason, "there is no /dev/kvm"); break;
	case -EACCES:
		snprintf(a->reason, sizeof a->reason, "/dev/kvm may not be opened by this user");
		break;
	default:
		snprintf(a->reason, sizeof a->reason, "/dev/kvm is there, but a test VM failed: %s",
			strerror(-r));
	}
}

/* The guest's emulated TSC ticks at the host's rate: measured once, over 10 ms. */
static uint64_t accel_tsc_khz(void)
{
	struct timespec nap = { 0, 10 * 1000 * 1000 };
	struct timespec a, b;
	uint64_t from, to, nsec;

	clock_gettime(CLOCK_MONOTONIC_RAW, &a);
	from = __rdtsc();
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_MONOTONIC_RAW, &b);
	to = __rdtsc();
	nsec = (uint64_t)(b.tv_sec - a.tv_sec) * 1000000000 + (uint64_t)(b.tv_nsec - a.tv_nsec);
	return nsec ? (to - from) * 1000000 / nsec : 0;
}

void accel_probe(struct accel *ret)
{
	int r;

	*ret = (struct accel){ 0 };
	r = accel_probe_kvm(ret);
	ret->kvm = r == 0;
	if (!ret->kvm)
		ret->loop_usec = 0;
	accel_explain(ret, r);
}

static int accel_boot_id(char out[static 37])
{
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r = file_read_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 64, &text, &len);

	if (r < 0 || len < 36)
		return r < 0 ? r : -EIO;
	memcpy(out, text, 36);
	out[36] = 0;
	return 0;
}

/* Whether /dev/kvm may be opened: what changes without a new boot, and makes a verdict stale. */
static int accel_access(void)
{
	return access("/dev/kvm", R_OK | W_OK) == 0;
}

/* "BOOT-ID ACCESS KVM LOOP TSC REASON": a note of our own, but read as carefully as any. */
static int accel_load(int dir, const char *boot_id, struct accel *ret)
{
	CLEANUP_FREE char *text = NULL;
	struct accel a = { 0 };
	unsigned long long loop, khz;
	int may_open, kvm, at = 0, r;
	char id[37];

	r = file_read_at(dir, ".accel", 512, &text, NULL);
	if (r < 0)
		return r;
	if (sscanf(text, "%36s %d %d %llu %llu %n", id, &may_open, &kvm, &loop, &khz, &at) != 5 ||
		at == 0)
		return -EBADMSG;
	if (!str_eq(id, boot_id) || may_open != accel_access())
		return -ESTALE;
	a.kvm = kvm == 1;
	a.loop_usec = loop;
	a.tsc_khz = khz;
	str_escape(a.reason, sizeof a.reason, text + at, strcspn(text + at, "\n"), NULL);
	*ret = a;
	return 0;
}

static void accel_save(int dir, const char *boot_id, const struct accel *a)
{
	CLEANUP_FREE char *text = str_printf("%s %d %d %llu %llu %s\n", boot_id, accel_access(),
		a->kvm, (unsigned long long)a->loop_usec, (unsigned long long)a->tsc_khz,
		a->reason);

	if (text)
		(void)file_write_at(dir, ".accel", text, strlen(text), 0644);
}

void accel_get(const struct vm_dirs *dirs, struct accel *ret)
{
	CLEANUP_CLOSE int dir = open(dirs->runtime, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char boot_id[37] = "";
	bool may_keep;

	may_keep = dir >= 0 && accel_boot_id(boot_id) >= 0;
	if (may_keep && accel_load(dir, boot_id, ret) == 0)
		return;
	accel_probe(ret);
	ret->tsc_khz = accel_tsc_khz();
	if (may_keep)
		accel_save(dir, boot_id, ret);
}
