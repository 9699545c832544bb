/*
 * The VMM as its caller sees it: what to run, the command that runs it, and what it tells afterwards.
 *
 * The caller spawns the process itself (it owns uids, namespaces and limits) from the argv that
 * vmm_command() makes, passing descriptors at the fixed numbers of enum vmm_fd; vmm_attach() then
 * takes the other end of the control channel. So one argv serves --dry-run and execution alike.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sd_event sd_event;
struct vm_dirs;
struct vmm;
struct vmm_backend;

/* Descriptor numbers in the VMM process; those that a back-end does not use stay closed. */
enum vmm_fd {
	VMM_FD_CONTROL = 3, /* UNIX socket: connected, or listening with VMM_CAP_API */
	VMM_FD_EVENTS = 4,  /* VMM_CAP_API: the writing end of a pipe */
	VMM_FD_CONSOLE =
		5, /* UNIX socket, the guest's serial port; unused with VMM_CAP_CONSOLE_TTY */
	VMM_FD_VSOCK =
		6, /* UNIX socket to uvms-vsockd, vhost-user; with VMM_CAP_VSOCK_DIALS: O_PATH */
	VMM_FD_KERNEL = 7,
	VMM_FD_INITRD = 8,
	VMM_FD_NET =
		9, /* UNIX stream socket to passt, as QEMU frames it; unused with VMM_CAP_NET_TAP */
	VMM_FD_DISK = 10, /* and up, one per disk */
};

#define VMM_DISKS_MAX    16
#define VMM_LANDLOCK_ABI 3 /* Linux 6.2: what Cloud Hypervisor asks for */

#define VMM_VSOCK_SOCKET "v"     /* a hybrid socket of the VMM's own, in its working directory */
#define VMM_CALL_CID     "{cid}" /* in a call, quotes included, where the CID goes once it is leased */

struct vmm_disk {
	char serial[21]; /* as the guest finds it: /sys/block/X/serial */
	bool read_only;
};

struct vmm_config {
	const char *name; /* borrowed, all */
	const char *uuid;
	const char *accel;     /* "kvm" or "tcg" */
	const char *cpu_model; /* with VMM_CAP_CPU_MODEL; NULL: the back-end's choice */
	const char *kernel_cmdline;
	const char *net_mac;            /* of the one interface; NULL: none */
	const char *const *oem_strings; /* SMBIOS type 11; NULL-terminated or NULL */
	const struct vmm_disk *disks;
	size_t n_disks;
	uint64_t memory_bytes;
	uint64_t memory_max_bytes; /* VMM_OP_MEMORY reaches to; 0: it cannot be changed */
	uint32_t cpus;
	uint32_t cpus_max; /* the same of VMM_OP_CPUS */
	uint32_t hotplug_slots;
	uint32_t version;  /* of the program (vmm_backend_version()); 0: of no interest */
	bool vsock_device; /* uvms's own; of interest with VMM_CAP_VSOCK_HYBRID, too */
	bool landlock;     /* the VMM shall confine itself to its files */
	const char *const *landlock_dirs; /* and to these, for what may be added; NULL: to none */
	const char *restore; /* the directory of a snapshot to go on from; NULL: boot */
	bool on_demand;      /* its memory is read as the guest needs it */
	bool reboot_ends;    /* a guest's reset ends the VM instead of booting again */
};

enum vmm_event {
	VMM_EVENT_UP,        /* the control channel answers; the guest is running */
	VMM_EVENT_RESET,     /* the guest rebooted; it boots again in the same process */
	VMM_EVENT_POWERDOWN, /* the power button was pressed */
	VMM_EVENT_SHUTDOWN,  /* the guest powered off by itself; the process will end */
	VMM_EVENT_PANICKED,  /* the guest's kernel said that it panicked */
	VMM_EVENT_CLOSED,  /* the control channel ended, as it does just before the process does */
	VMM_EVENT_FAULT,   /* nonsense or silence on the control channel: do not ask again */
	VMM_EVENT_REMOVED, /* nobody waits for it (any more): the guest gave up the device whose id DETAIL is; all of it is gone */
};

typedef void (*vmm_handler)(
	struct vmm *vmm, enum vmm_event event, const char *detail, void *userdata);

enum vmm_caps {
	VMM_CAP_POWER_BUTTON = 1 << 0,
	VMM_CAP_VSOCK_DEVICE = 1 << 1, /* takes uvms's own vsock device (VMM_FD_VSOCK) */
	VMM_CAP_VSOCK_HYBRID = 1 << 2, /* brings a hybrid socket of its own */
	VMM_CAP_PAUSE = 1 << 3,        /* VMM_OP_PAUSE, VMM_OP_RESUME */
	VMM_CAP_KVM = 1 << 4,
	VMM_CAP_TCG = 1 << 5,
	VMM_CAP_API = 1 << 6, /* is told what to run by calls on VMM_FD_CONTROL (vmm_calls()) */
	VMM_CAP_CONSOLE_TTY =
		1 << 7,           /* the serial port is its standard input and output, a terminal */
	VMM_CAP_NET_TAP = 1 << 8, /* takes a TAP (struct vmm_channels) instead of VMM_FD_NET */
	VMM_CAP_REBOOT_ENDS =
		1 << 9, /* ends by itself when the guest resets and reboot_ends was said */
	VMM_CAP_LANDLOCK = 1 << 10, /* where the kernel has VMM_LANDLOCK_ABI */
	VMM_CAP_MEMORY = 1 << 11,   /* VMM_OP_MEMORY */
	VMM_CAP_CPUS = 1 << 12,     /* VMM_OP_CPUS */
	VMM_CAP_DISKS = 1 << 13,    /* VMM_OP_ADD_DISK, VMM_OP_REMOVE */
	VMM_CAP_VSOCK_DIALS =
		1 << 14,            /* connects to the vsock device's socket, at each boot anew */
	VMM_CAP_SNAPSHOT = 1 << 15, /* VMM_OP_SNAPSHOT, and vmm_config.restore */
	VMM_CAP_CPU_MODEL = 1 << 16,
	VMM_CAP_NET_LIVE = 1 << 17, /* VMM_OP_ADD_NET, VMM_OP_REMOVE */
	VMM_CAP_VSOCK_OUT =
		1 << 18, /* VMM_OP_VSOCK_OUT, _IN: its vsock device is in the way of a snapshot */
	VMM_CAP_PMEM_LIVE = 1 << 19,    /* VMM_OP_ADD_PMEM */
	VMM_CAP_PMEM_REMOVED = 1 << 20, /* and it can be removed again */
	VMM_CAP_FS_LIVE = 1 << 21,      /* VMM_OP_ADD_FS, VMM_OP_REMOVE; wants shared memory */
};

/* NULL: there is no such back-end (names: "ch", "qemu", "null"). */
const struct vmm_backend *vmm_backend_find(const char *name);
const char *vmm_backend_name(const struct vmm_backend *b);
unsigned vmm_backend_caps(const struct vmm_backend *b);

/* The program's path (heap), -ENOENT when it is not installed. */
int vmm_backend_program(const struct vmm_backend *b, char **ret);

/*
 * The program's version, asked of PROGRAM and kept in RUNTIME for as long as that file is the same; 0 when the
 * back-end has no use for it. -EOPNOTSUPP with the reason (heap): it is too old.
 */
int vmm_backend_version(const struct vmm_backend *b, const struct vm_dirs *dirs,
	const char *program, uint32_t *ret, char **ret_reason);

/* 0, or -EOPNOTSUPP with what this back-end cannot do (heap), before anything is touched. */
int vmm_check(const struct vmm_backend *b, const struct vmm_config *c, char **ret_reason);

/* Of a VM with N_VOLUMES, of this back-end's VERSION: why it cannot be saved (heap), NULL when it can. */
char *vmm_check_snapshot(const struct vmm_backend *b, uint32_t version, size_t n_volumes);

/* Whether VERSION can read the memory of a snapshot on demand, where it may use userfaultfd(2). */
bool vmm_can_restore_on_demand(const struct vmm_backend *b, uint32_t version);

/* argv of the VMM (strv, owned by the caller). */
int vmm_command(const struct vmm_backend *b, const struct vmm_config *c, char ***ret_argv);

/*
 * VMM_CAP_API: what is to be called once the VMM runs, "METHOD NAME BODY" each (strv, owned by the caller);
 * none otherwise (NULL).
 */
int vmm_calls(const struct vmm_backend *b, const struct vmm_config *c, char ***ret_calls);

/* Our ends; -EBADF where there is none. */
struct vmm_channels {
	int control_fd; /* connected; with VMM_CAP_API: O_PATH of the listening socket */
	int events_fd;  /* the reading end of VMM_FD_EVENTS */
	int net_fd;     /* the TAP that is to be the guest's link */
	int restore_fd; /* the directory of vmm_config.restore */
};

/*
 * Starts to talk, and makes the CALLS (borrowed until it returns; NULL: none). CHANNELS are taken over whatever
 * is returned. Events come from EVENT's loop, never from within a call.
 */
int vmm_attach_consume(const struct vmm_backend *b, sd_event *event,
	const struct vmm_channels *channels, const char *const *calls, vmm_handler handler,
	void *userdata, struct vmm **ret);

/* The call whose answer the VMM owes us, or owed when it ended or hung up; NULL: none (borrowed). */
const char *vmm_owes(const struct vmm *v);

/* Ask; the answer is an event. Both are without effect after VMM_EVENT_FAULT (-ENOTCONN). */
int vmm_power_button(struct vmm *v);
int vmm_quit(struct vmm *v);

/* What may be asked of a VMM whose guest runs. */
enum vmm_op_kind {
	VMM_OP_PAUSE,
	VMM_OP_RESUME,
	VMM_OP_MEMORY,   /* the guest shall have BYTES; how far it follows is its own matter */
	VMM_OP_CPUS,     /* and CPUS */
	VMM_OP_ADD_DISK, /* ID; the guest sees SERIAL */
	VMM_OP_ADD_NET, /* ID, with the address MAC: FD is a TAP (VMM_CAP_NET_TAP) or passt's socket */
	VMM_OP_ADD_PMEM, /* ID: the first BYTES, a multiple of VMM_PMEM_ALIGN, of a file that is only read */
	VMM_OP_ADD_FS, /* ID: a virtio-fs with this TAG; its daemon is at FD, or listens where PATH leads */
	VMM_OP_REMOVE, /* ID, which ADDED added; done when the guest has given it up and the VMM says so */
	VMM_OP_SNAPSHOT,  /* the paused guest into the empty directory PATH (and FD) */
	VMM_OP_VSOCK_OUT, /* the guest gives its vsock device up; what is behind it is let go */
	VMM_OP_VSOCK_IN,  /* and gets another, whose uvms-vsockd is at FD */
	VMM_OPS,
};

#define VMM_NET_ID     "net0" /* the one network: there from the start, or added */
#define VMM_SERIAL_MAX 20     /* bytes (virtio spec, block device) */
#define VMM_TAG_MAX    36     /* bytes (virtio spec, file system device) */
#define VMM_PMEM_ALIGN (2 << 20)
#define VMM_FS_QUEUE   1024 /* entries: as many as one of virtio-fs has at most, in either VMM */

struct vmm_op {
	enum vmm_op_kind kind;
	enum vmm_op_kind added; /* of VMM_OP_REMOVE */
	uint64_t bytes;
	uint32_t cpus;
	const char *id; /* borrowed, as all are: ours, of [A-Za-z0-9_.-], beginning with a letter */
	const char *mac;
	const char *serial; /* 1 … VMM_SERIAL_MAX bytes of the same */
	const char *tag;    /* 1 … VMM_TAG_MAX bytes of the same */
	const char *
		path; /* borrowed: of disk or directory, for who cannot be given FD; a listening socket */
	int fd;       /* borrowed: the same, a disk open for writing; a connected socket */
	uint32_t slot; /* with VMM_CAP_SLOTS: a free one */
	/* what the VM had from the start */
	uint64_t boot_bytes;
};

#define VMM_OP_USEC       (UINT64_C(20) * 1000000)
#define VMM_SNAPSHOT_USEC (UINT64_C(600) * 1000000)
#define VMM_FS_USEC                                                                                \
	(UINT64_C(70) * 1000000) /* a daemon that is not there holds a VMM up for 60 s */

/* ERROR 0: it is so. Else -errno; REASON (borrowed, may be NULL) is what the VMM said. Comes from the loop. */
typedef void (*vmm_op_done)(struct vmm *vmm, int error, const char *reason, void *userdata);

/*
 * One at a time, and not longer than VMM_OP_USEC (a snapshot: VMM_SNAPSHOT_USEC; a shared directory: VMM_FS_USEC): then
 * -ETIMEDOUT. -EOPNOTSUPP: this back-end cannot, nothing was touched; -EINVAL: nothing can be removed that is added so;
 * -EBUSY: another one is under way; -ENOTCONN: it is not asked any more. One that is under way when the
 * VMM ends is never done.
 */
int vmm_operate(struct vmm *v, const struct vmm_op *op, vmm_op_done done, void *userdata);

/* The operation under way shall end soon, done or not, where the VMM can be told so. */
void vmm_cancel(struct vmm *v);

/* The control channel as the next image of this process can go on with it. */
struct vmm_saved {
	int fd;              /* borrowed: struct vmm_channels.control_fd */
	int events_fd;       /* borrowed; -EBADF: none */
	const char *pending; /* borrowed: the beginning of a message */
	size_t pending_len;
	uint32_t version; /* of the program; 0: of no interest */
};

#define VMM_PENDING_MAX (64 * 1024)

/* -EBUSY: something is under way, or over. */
int vmm_save(const struct vmm *v, struct vmm_saved *ret);

/* As vmm_attach_consume(), for a VMM that has said VMM_EVENT_UP already. */
int vmm_restore_consume(const struct vmm_backend *b, sd_event *event, const struct vmm_saved *saved,
	vmm_handler handler, void *userdata, struct vmm **ret);

void vmm_destroy(struct vmm *v);
