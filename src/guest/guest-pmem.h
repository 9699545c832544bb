/*
 * Persistent memory that the host adds while the guest runs. The guest sees nothing of a device but its size, so the host
 * adds no two of one size; where there are two nevertheless, it is not guessed which one is meant.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GUEST_PMEM_MAX 16 /* as many as a VM has slots for devices that come later */

struct guest_pmem_disk {
	char name[32]; /* below /dev and /sys/block */
	uint64_t bytes;
	bool is_used; /* mounted, by whomever */
};

/* Those that are there now, MAX at most: how many, or -errno. */
int guest_pmem_list(struct guest_pmem_disk *ret, size_t max);

/* The one of BYTES that is not used: which. -EAGAIN: there is none (yet); -ENOTUNIQ: there are several. */
int guest_pmem_choose(const struct guest_pmem_disk *disks, size_t n, uint64_t bytes);

/* The kernel has the drivers that make a disk of such a device. */
bool guest_pmem_has_drivers(void);
