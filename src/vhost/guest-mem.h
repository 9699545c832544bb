/*
 * Guest memory as the front-end shares it.
 *
 * Trust: the table comes from the VMM and the addresses from the guest, and both are hostile. A
 * region is taken only if nothing in it wraps, it overlaps no other (in guest and in user
 * addresses), it is made of whole pages, it lies inside its file, and that file is sealed against
 * shrinking: otherwise its owner could truncate it and every later access here would be SIGBUS.
 * (Cloud Hypervisor cannot seal: for it `may_shrink` is set, and the process must be able to end by SIGBUS.)
 * What is read from guest memory may change between two reads: copy once, then look at the copy.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define GUEST_MEM_REGIONS_MAX 8

struct guest_mem_region {
	uint64_t gpa, size, user;
	uint8_t *data; /* where gpa is here */
	void *map;     /* owned: what munmap() wants */
	size_t map_bytes;
};

struct guest_mem {
	size_t n;
	bool may_shrink; /* files without that seal are taken */
	struct guest_mem_region regions[GUEST_MEM_REGIONS_MAX];
};

void guest_mem_init(struct guest_mem *m, bool may_shrink);
void guest_mem_finish(struct guest_mem *m);

/*
 * Maps SIZE bytes at OFFSET of FD (borrowed) as [GPA, GPA + SIZE). -EINVAL: wraps, overlaps, not
 * whole pages, outside the file; -EPERM: it is not sealed and has to be; -ENOSPC: too many regions.
 */
int guest_mem_add(
	struct guest_mem *m, int fd, uint64_t gpa, uint64_t size, uint64_t user, uint64_t offset);

/* LEN bytes at a user address of the front-end, in one piece, or NULL. */
void *guest_mem_user(const struct guest_mem *m, uint64_t user, uint64_t len);

/*
 * Appends [GPA, GPA + LEN) to IOV, in as many pieces as it crosses regions. Returns how many, or
 * -EFAULT when a byte is not guest memory, -ENOBUFS when more than MAX pieces are needed.
 */
int guest_mem_iov(
	const struct guest_mem *m, uint64_t gpa, uint64_t len, struct iovec *iov, size_t max);

/* Copies LEN bytes from GPA; the compiler may not look at guest memory again for them. */
int guest_mem_read(const struct guest_mem *m, uint64_t gpa, void *ret, size_t len);
