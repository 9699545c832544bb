/* A volume as a VM asks for it: "NAME:PATH[:SIZE]". */
#pragma once

#include <stdint.h>

#define VM_VOLUMES_MAX      8  /* of one VM */
#define VM_VOLUME_NAME_MAX  64 /* bytes */
#define VM_VOLUME_PATH_MAX  1023
#define VM_VOLUME_MIN_BYTES (UINT64_C(16) << 20)
#define VM_VOLUME_MAX_BYTES (UINT64_C(1) << 44)

struct vm_volume {
	char name[VM_VOLUME_NAME_MAX + 1];
	char path[VM_VOLUME_PATH_MAX + 1]; /* in the guest: absolute, no "..", not "/" */
	uint64_t size_bytes;               /* 0: not said */
};

/* 0, or -EINVAL: 1 … 64 of [A-Za-z0-9_.-], beginning with a letter or digit. */
int vm_volume_check_name(const char *name);

/* 0, or -EINVAL with *RET_REASON (static words). */
int vm_volume_parse(const char *text, struct vm_volume *ret, const char **ret_reason);
