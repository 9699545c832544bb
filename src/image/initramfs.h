/*
 * The initramfs of one VM: three cpio archives in one file without a name, which the VMM sees as one.
 *
 *	the kernel's	/uvms/modules/…, /uvms/modules.list	a blob of the store, made once per kernel
 *	the program's	/init, /dev/console
 *	the VM's	/uvms/boot				its boot description, with the secret
 *			/uvms/credentials/NAME
 */
#pragma once

#include <stddef.h>

struct initramfs {
	int modules_fd, guest_fd; /* borrowed, all; guest_fd: the uvms-guest binary */
	int into_fd;              /* a directory on whose file system it lies; -EBADF: a memfd */
	const void *boot;         /* the encoded boot description */
	size_t boot_len;
	int credentials_fd;             /* a directory; -EBADF: none */
	const char *const *credentials; /* names below it; NULL: none */
	size_t credentials_max;         /* bytes of all together; -EFBIG beyond it */
};

/* The file, at offset 0, or -errno. */
int initramfs_build(const struct initramfs *i);
