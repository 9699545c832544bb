/*
 * Where uvms keeps things. System (root): /var/lib/uvms, /run/uvms, /etc/uvms. User:
 * $XDG_STATE_HOME/uvms, $XDG_RUNTIME_DIR/uvms, $XDG_CONFIG_HOME/uvms, each with its usual fallback.
 * UVMS_STATE_DIR, UVMS_RUNTIME_DIR and UVMS_CONFIG_DIR go before all of them.
 *
 *   STATE/store/            the OCI image layout (image/)
 *   STATE/vms/NAME/         spec.json, last/{status.json,console,vmm.log,vsockd.log,supervisor.log}
 *   STATE/leases/KIND-N     the name that holds number N (lease)
 *   STATE/volumes/NAME/     disk (image/volume)
 *   STATE/snapshots/NAME/   a VM as it was (cli/snapshot)
 *   STATE/events, events.1   what happened (vm-event)
 *   RUNTIME/NAME/lock       the name lock; RUNTIME/NAME/current → the incarnation's directory
 */
#pragma once

#define VM_SNAPSHOTS         "snapshots" /* below STATE */
#define VM_SNAPSHOT_NAME_MAX 80          /* bytes */

struct vm_dirs {
	char *state; /* owned, absolute paths */
	char *runtime;
	char *config;
	int runtime_fd, vms_fd; /* owned: vm_dirs_hold(); -EBADF: opened at each use */
};

/* Finds the paths and makes STATE and RUNTIME (0711 for root, else 0700). 0 or -errno. */
int vm_dirs_init(struct vm_dirs *ret);
void vm_dirs_finish(struct vm_dirs *d);

/* Keeps RUNTIME and STATE/vms open: for short lives that look at many VMs. 0 or -errno. */
int vm_dirs_hold(struct vm_dirs *d);

/* STATE/vms, the caller's. Descriptor or -errno. */
int vm_dirs_open_vms(const struct vm_dirs *d);

/* Open directory descriptors below them; made when missing. Descriptor or -errno. */
int vm_dirs_open_state(const struct vm_dirs *d, const char *name);
int vm_dirs_open_vm(const struct vm_dirs *d, const char *vm_name, int create);

/*
 * A VM comes to be known, and is forgotten, in one step: its directory is filled under a hidden name, which
 * is locked (lock.h), and renamed; it is hidden again before it is removed. What a killed process left hidden
 * is swept when the next one is made.
 */
#define VM_DIRS_HIDDEN_MAX 32

/* A new hidden directory: descriptor, and its name. */
int vm_dirs_new_vm(const struct vm_dirs *d, char ret_hidden[static VM_DIRS_HIDDEN_MAX]);

/* -EEXIST: there is a VM of that name. */
int vm_dirs_name_vm(const struct vm_dirs *d, const char *hidden, const char *vm_name);
int vm_dirs_drop_hidden(const struct vm_dirs *d, const char *hidden);

/* 0 also when there is none. */
int vm_dirs_remove_vm(const struct vm_dirs *d, const char *vm_name);
int vm_dirs_open_runtime(const struct vm_dirs *d, const char *vm_name, int create);
