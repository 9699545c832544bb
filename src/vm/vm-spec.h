/* What a VM shall be: the only input of a plan. Made from options, kept as vms/NAME/spec.json. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

enum {
	VM_CPUS_MAX = 64,
	VM_HOTPLUG_SLOTS_MAX = 16,
	VM_CPU_MODEL_MAX = 255,
};

#define VM_MEMORY_MIN_BYTES     (UINT64_C(96) << 20)
#define VM_MEMORY_DEFAULT_BYTES (UINT64_C(512) << 20)
#define VM_MEMORY_STEP_BYTES    (UINT64_C(128) << 20) /* what --max-memory adds comes in steps of it */
#define VM_SPEC_TEXT_MAX        (256 * 1024)

#define VM_CREDENTIALS_MAX      64            /* of one VM */
#define VM_CREDENTIAL_MAX_BYTES (1024 * 1024) /* of all together (systemd's limit) */
#define VM_CREDENTIAL_NAME_MAX  255

struct vm_spec {
	char *name;     /* owned, all strings */
	char *image;    /* name or digest in the store */
	char *kernel;   /* NULL: the store's default */
	char **command; /* NULL: boot the image's own init */
	char **env;     /* NAME=VALUE, for command */
	char *workdir;
	char *user;
	char *backend;      /* auto, ch, qemu, null */
	char *accel;        /* auto, kvm, tcg */
	char *cpu_model;    /* of QEMU's -cpu, features included; NULL: the back-end's choice */
	char *vsock;        /* auto, vmm, uvms: whose the vsock device is; NULL: auto */
	char *net;          /* none, user; NULL: none */
	char **publish;     /* see vm-publish.h; needs net user */
	char **connects;    /* see vm-service.h */
	char **accepts;     /* the same, from the other side */
	char **volumes;     /* see vm-volume.h */
	char **credentials; /* names; their contents are vms/NAME/credentials/NAME */
	uint64_t memory_bytes;
	uint64_t memory_max_bytes; /* what it may grow to while it runs; 0: it cannot */
	uint64_t root_bytes;       /* of the overlay; 0: half of the guest's memory */
	uint64_t start_timeout_usec;
	uint64_t stop_timeout_usec;
	uint32_t cpus;
	uint32_t cpus_max; /* the same of virtual CPUs */
	uint32_t hotplug_slots;
	bool keep;     /* stays known after it stopped, until rm */
	bool attached; /* the command is started by the client, which then owns the VM */
	bool getty;    /* let systemd put a getty on the console */
};

void vm_spec_init(struct vm_spec *ret);
void vm_spec_finish(struct vm_spec *s);

/* 0, or -EINVAL with the reason (heap, for the user). */
int vm_spec_check(const struct vm_spec *s, char **ret_reason);

static inline bool vm_spec_has_network(const struct vm_spec *s)
{
	return s->net && s->net[0] == 'u';
}

/* 0, or -EINVAL: 1 … 255 of [A-Za-z0-9_.-], not beginning with a dot. */
int vm_spec_check_credential(const char *name);

struct json_object *vm_spec_to_json(const struct vm_spec *s);
int vm_spec_from_json(const char *text, size_t len, struct vm_spec *ret, char **ret_reason);

/* vms/NAME/spec.json. */
int vm_spec_write(int vm_dirfd, const struct vm_spec *s);
int vm_spec_read(int vm_dirfd, struct vm_spec *ret, char **ret_reason);
