#include "lease.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "lock.h"
#include "str.h"
#include "vm-name.h"

int lease_lock_at(int dirfd, const char *name)
{
	CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = lock_take(fd);
	return r < 0 ? r : TAKE_FD(fd);
}

int lease_is_held_at(int dirfd, const char *name)
{
	CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	return fd < 0 ? -errno : lock_is_held(fd);
}

/* Names that collide look at this many numbers: the same window for finding and for claiming. */
#define LEASE_PROBES 64

struct lease_slot {
	char file[64]; /* KIND-N */
	uint32_t number;
};

static struct lease_slot lease_slot(
	const struct lease_range *range, const char *vm_name, uint32_t i)
{
	uint32_t start = (uint32_t)(str_hash(vm_name) % range->count);
	struct lease_slot slot = { .number = range->first + (start + i) % range->count };

	snprintf(slot.file, sizeof slot.file, "%s-%u", range->kind, slot.number);
	return slot;
}

static uint32_t lease_probes(const struct lease_range *range)
{
	return range->count < LEASE_PROBES ? range->count : LEASE_PROBES;
}

static int lease_find(
	int dir, const struct lease_range *range, const char *vm_name, struct lease_slot *ret)
{
	for (uint32_t i = 0; i < lease_probes(range); i++) {
		struct lease_slot slot = lease_slot(range, vm_name, i);
		CLEANUP_FREE char *owner = NULL;
		int r = file_read_at(dir, slot.file, VM_NAME_MAX, &owner, NULL);

		if (r < 0 && r != -ENOENT)
			return r;
		if (r < 0 || !str_eq(owner, vm_name))
			continue;
		*ret = slot;
		return 0;
	}
	return -ENOENT;
}

/* O_EXCL decides between two claims; a reader that sees the file still empty takes it for taken. */
static int lease_claim(
	int dir, const struct lease_range *range, const char *vm_name, struct lease_slot *ret)
{
	for (uint32_t i = 0; i < lease_probes(range); i++) {
		struct lease_slot slot = lease_slot(range, vm_name, i);
		CLEANUP_CLOSE int fd = openat(
			dir, slot.file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
		int r;

		if (fd < 0 && errno == EEXIST)
			continue;
		if (fd < 0)
			return -errno;
		r = fd_write_all(fd, vm_name, strlen(vm_name));
		if (r < 0) {
			unlinkat(dir, slot.file, 0);
			return r;
		}
		*ret = slot;
		return 0;
	}
	return -ENOSPC;
}

int lease_number(int leases_fd, const struct lease_range *range, const char *vm_name, uint32_t *ret)
{
	struct lease_slot slot;
	int r;

	r = lease_find(leases_fd, range, vm_name, &slot);
	if (r == -ENOENT)
		r = lease_claim(leases_fd, range, vm_name, &slot);
	if (r < 0)
		return r;
	*ret = slot.number;
	return 0;
}

int lease_forget(int leases_fd, const struct lease_range *range, const char *vm_name)
{
	struct lease_slot slot;
	int r;

	r = lease_find(leases_fd, range, vm_name, &slot);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return unlinkat(leases_fd, slot.file, 0) < 0 ? -errno : 0;
}
