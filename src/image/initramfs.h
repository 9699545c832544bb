/*
 * The initramfs of one VM: three cpio archives in one memfd, which the VMM sees as one file.
 *
 *	the kernel's	/uvms/modules/…, /uvms/modules.list	a blob of the store, made once per kernel
 *	the program's	/init, /dev/console
 *	the VM's	/uvms/boot				its boot description, with the secret
 */
#pragma once

#include <stddef.h>

/* MODULES_FD and GUEST_FD (the uvms-guest binary) are borrowed. A memfd, at offset 0, or -errno. */
int initramfs_build(int modules_fd, int guest_fd, const void *boot, size_t boot_len);
