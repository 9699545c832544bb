/* The root of the guest: kernel file systems, layers, overlay, volumes, and the switch into it. */
#pragma once

#include "boot-desc.h"

/* On failure STEP (borrowed or static) names what did not work. All return 0 or -errno. */
int guest_root_mount_kernel(void); /* /proc /sys /dev of the initramfs; console as 0, 1, 2 */
int guest_root_build(const struct boot_desc *d, const char **step);
int guest_root_switch(const struct boot_desc *d, const char **step);

/* In the new root: volumes and shares, hostname, machine id. */
int guest_root_mount_volumes(const struct boot_desc *d, const char **step);
void guest_root_identity(const struct boot_desc *d);
