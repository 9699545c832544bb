/*
 * QEMU's command line. A snapshot is restored by the same one: what is no part of the guest's state (its devices, their
 * places and sizes) must come out alike from the same configuration.
 */
#pragma once

#include <stdint.h>

struct vmm_config;

#define QEMU_VSOCK         "vsock0"
#define QEMU_VSOCK_DRIVER  "vhost-user-vsock-pci"
#define QEMU_VSOCK_CHARDEV "vsock"
#define QEMU_VSOCK_PORT    "port-vsock"

/* Addresses for files that are added as memory, for each slot: bytes. One file may use what others leave. */
#define QEMU_PMEM_ROOM (UINT64_C(4) << 30)

/* Appends to ARGV. 0 or -ENOMEM. */
int qemu_config_arguments(const struct vmm_config *c, char ***argv);
