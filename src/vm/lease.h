/*
 * Leases: locks that live as long as the processes which hold them, and numbers kept for a name.
 *
 * A lock is one of lock.h: every process that inherits the descriptor holds it, and asking takes nothing, so
 * looking never makes a start fail.
 *
 * A number (a CID, a uid) is the file STATE/leases/KIND-N whose content is the name that owns it. It
 * starts at hash(name) and probes upwards; it stays that name's until lease_forget().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Locks NAME below DIRFD (made 0600). Descriptor; -EBUSY when somebody else has it. */
int lease_lock_at(int dirfd, const char *name);

/* 1: somebody holds it, 0: nobody, or -errno (-ENOENT). */
int lease_is_held_at(int dirfd, const char *name);

struct lease_range {
	const char *kind; /* "cid", "uid" */
	uint32_t first;
	uint32_t count;
};

/* The number of VM_NAME in the range, taken now if it had none. -ENOSPC: all are taken. */
int lease_number(
	int leases_fd, const struct lease_range *range, const char *vm_name, uint32_t *ret);
int lease_forget(int leases_fd, const struct lease_range *range, const char *vm_name);
