/* The numbers that a name holds (CID, uid), and the end of the name with all that belongs to it. */
#pragma once

#include <stdint.h>

struct vm_dirs;

/* The number of KIND "cid" or "uid" that is VM_NAME's, taken when it had none. */
int vm_lease_cid(const struct vm_dirs *dirs, const char *vm_name, uint32_t *ret);
int vm_lease_uid(const struct vm_dirs *dirs, const char *vm_name, uint32_t *ret);

/* The caller holds the name lock, or the VM was never started. */
int vm_lease_drop(const struct vm_dirs *dirs, const char *vm_name);
