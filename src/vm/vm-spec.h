/* What a VM shall be: the only input of a plan. Made from options, kept as vms/NAME/spec.json. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;

enum {
	VM_CPUS_MAX = 64,
	VM_HOTPLUG_SLOTS_MAX = 16,
};

#define VM_MEMORY_MIN_BYTES     (UINT64_C(96) << 20)
#define VM_MEMORY_DEFAULT_BYTES (UINT64_C(512) << 20)
#define VM_SPEC_TEXT_MAX        (256 * 1024)

struct vm_spec {
	char *name;     /* owned, all strings */
	char *image;    /* name or digest in the store */
	char *kernel;   /* NULL: the store's default */
	char **command; /* NULL: boot the image's own init */
	char **env;     /* NAME=VALUE, for command */
	char *workdir;
	char *user;
	char *backend; /* auto, qemu, null */
	char *accel;   /* auto, kvm, tcg */
	uint64_t memory_bytes;
	uint64_t root_bytes; /* of the overlay; 0: half of the guest's memory */
	uint64_t start_timeout_usec;
	uint64_t stop_timeout_usec;
	uint32_t cpus;
	uint32_t hotplug_slots;
	bool keep;     /* stays known after it stopped, until rm */
	bool attached; /* the command is started by the client, which then owns the VM */
	bool getty;    /* let systemd put a getty on the console */
};

void vm_spec_init(struct vm_spec *ret);
void vm_spec_finish(struct vm_spec *s);

/* 0, or -EINVAL with the reason (heap, for the user). */
int vm_spec_check(const struct vm_spec *s, char **ret_reason);

struct json_object *vm_spec_to_json(const struct vm_spec *s);
int vm_spec_from_json(const char *text, size_t len, struct vm_spec *ret, char **ret_reason);

/* vms/NAME/spec.json. */
int vm_spec_write(int vm_dirfd, const struct vm_spec *s);
int vm_spec_read(int vm_dirfd, struct vm_spec *ret, char **ret_reason);
