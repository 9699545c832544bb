/*
 * What a VM is right now: `status` in the incarnation's directory while it lives, `last/status.json`
 * in vms/NAME afterwards. Written to a temporary name and renamed. The file alone proves no life: the
 * name lock does (vm_status_look()).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct vm_dirs;

#define VM_STATUS_MOUNTS_MAX 8

/* What was mounted in the guest while it ran. */
struct vm_status_mount {
	char *path;   /* owned, all: in the guest */
	char *kind;   /* share, image */
	char *source; /* the host's directory; the image */
	char *state;  /* mounted, or what is wrong */
};

struct vm_status {
	char *name;  /* owned, all strings */
	char *state; /* starting, booting, running, stopping, stopped, failed */
	char *image;
	char *image_digest; /* what that, and the kernel's name, meant when it was started */
	char *kernel_digest;
	char *incarnation;
	char *backend;
	char *backend_reason; /* why this one; NULL: it was asked for */
	char *accel;
	char *vsock;           /* uvms: its device is uvms-vsockd; vmm: the VMM's own */
	char *ready;           /* command, running, degraded; NULL: not yet */
	char *failed_units;    /* lines, when degraded */
	char *outcome;         /* clean, acpi, forced, crashed, panicked, failed; NULL: it lives */
	char *cause;           /* of the outcome, one line */
	char *exit_source;     /* cmd, signal: the end of the VM's own command */
	char *network;         /* "user ADDRESS", or that it is lost; NULL: none */
	char *restored;        /* how its memory came; NULL: it booted */
	char *snapshot;        /* from which one; the same */
	char *isolation;       /* what was reached, words separated by spaces */
	char **attached;       /* volumes that were added while it ran */
	char *stopped;         /* vmm, vsockd, namespace: stopped by a signal right now */
	uint64_t memory_bytes; /* what the guest shall have */
	uint64_t started_usec; /* CLOCK_REALTIME */
	uint64_t ready_usec;
	uint64_t stopped_usec;
	uint64_t console_dropped_bytes;
	uint32_t supervisor_pid;
	uint32_t vmm_pid;
	uint32_t vsockd_pid;
	uint32_t vsockd_replaced; /* how often */
	uint32_t cpus;
	uint32_t cid;
	uint32_t uid;
	uint32_t exit_code;
	uint32_t boots; /* resets of the guest included */
	struct vm_status_mount mounts[VM_STATUS_MOUNTS_MAX];
	size_t n_mounts;
};

void vm_status_finish(struct vm_status *s);

/* Appends copies, or forgets all. 0 or -ENOMEM; no room is no error. */
int vm_status_add_mount(struct vm_status *s, const char *path, const char *kind, const char *source,
	const char *state);
void vm_status_drop_mounts(struct vm_status *s);
struct json_object *vm_status_to_json(const struct vm_status *s);
/* OBJ is read, and then no longer whole. */
int vm_status_from_json(struct json_object *obj, struct vm_status *ret);
int vm_status_write_at(int dirfd, const char *name, const struct vm_status *s);
int vm_status_read_at(int dirfd, const char *name, struct vm_status *ret);

/*
 * The status of VM_NAME as it is: the live one when the lock is held; else the last one, with state
 * "stopped" (or "created" when it never ran). A held lock without a status file is "starting".
 * -ENOENT: there is no such VM.
 */
int vm_status_look(const struct vm_dirs *dirs, const char *vm_name, struct vm_status *ret);

/* The same for one that is known not to run. */
int vm_status_last(const struct vm_dirs *dirs, const char *vm_name, struct vm_status *ret);
bool vm_status_is_alive(const struct vm_status *s);
