/*
 * virtiofsd(1): where it is, and which. There are two programs of that name: QEMU's, up to QEMU 7.2, in C, which runs
 * as root only; and the one of virtio-fs.gitlab.io, in Rust. They take other options, and are told apart by what
 * they say of themselves.
 */
#pragma once

#define VM_VIRTIOFSD_ENV "UVMS_VIRTIOFSD"

enum vm_virtiofsd {
	VM_VIRTIOFSD_UNKNOWN,
	VM_VIRTIOFSD_QEMU,
	VM_VIRTIOFSD_RUST,
};

/* The path (heap): what $UVMS_VIRTIOFSD says, or as found on the PATH and where packages put it. -ENOENT: nowhere. */
int vm_virtiofsd_find(char **ret);

/* By the first line of what it says to --version. */
enum vm_virtiofsd vm_virtiofsd_tell(const char *text);

/* "qemu", "rust"; and back (VM_VIRTIOFSD_UNKNOWN). */
const char *vm_virtiofsd_name(enum vm_virtiofsd v);
enum vm_virtiofsd vm_virtiofsd_named(const char *name);

/* Why V is of no use to the caller, and what to do; NULL, NULL: it is of use. Static. */
const char *vm_virtiofsd_fault(enum vm_virtiofsd v, const char **ret_next);

/* What to do where there is none. */
#define VM_VIRTIOFSD_REMEDY                                                                        \
	"apt install virtiofsd (Debian 12: qemu-system-common, whose virtiofsd is for root only)"
