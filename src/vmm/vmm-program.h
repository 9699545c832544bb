/*
 * Where a VMM's program is. Apart from the back-ends, so that who only looks for it (the CLI) does not
 * bring their libraries into memory at each start.
 */
#pragma once

#define VMM_PROGRAM_CH       "cloud-hypervisor"
#define VMM_PROGRAM_CH_ENV   "UVMS_CLOUD_HYPERVISOR"
#define VMM_PROGRAM_QEMU     "qemu-system-x86_64"
#define VMM_PROGRAM_QEMU_ENV "UVMS_QEMU"

/* The path (heap): what $ENV says, or PROGRAM as found; -ENOENT when it is not installed. */
int vmm_program_find(const char *program, const char *env, char **ret);
