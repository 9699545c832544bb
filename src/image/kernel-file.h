/*
 * The bootable file. Distributions ship a bzImage: a loader with the kernel proper, an ELF file,
 * compressed inside (Linux Documentation/x86/boot.rst). Cloud Hypervisor and QEMU enter that ELF file
 * directly by its Xen PVH note, which saves the guest the decompression: with pure emulation, a second.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define KERNEL_FILE_RELEASE_MAX 64

struct kernel_file {
	char *data; /* owned */
	size_t len;
	bool is_elf; /* vmlinux with a PVH entry; else the bzImage as it was */
	char release[KERNEL_FILE_RELEASE_MAX + 1]; /* "" when the file does not say */
	char note[128];                            /* why it is not ELF */
};

/* DATA (LEN bytes) is a bzImage or an ELF file; -ENOEXEC: neither. */
int kernel_file_read(const char *data, size_t len, struct kernel_file *ret);
void kernel_file_finish(struct kernel_file *k);

/* Has it a PVH entry (XEN_ELFNOTE_PHYS32_ENTRY)? */
bool kernel_file_has_pvh(const char *elf, size_t len);
