#include "guest-pmem.h"

#include "cleanup.h"
#include "file.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PMEM_PREFIX "pmem"
#define SECTOR      512 /* bytes: of /sys/block/X/size, whatever the disk's own are */

/* 0: it cannot be told. */
static uint64_t disk_bytes(int dir, const char *name)
{
	CLEANUP_FREE char *text = NULL;
	char path[64];

	snprintf(path, sizeof path, "%s/size", name);
	return file_read_at(dir, path, 64, &text, NULL) == 0 ? strtoull(text, NULL, 10) * SECTOR
							     : 0;
}

/* Whoever mounts a disk has it open for himself alone. */
static bool disk_is_used(const char *name)
{
	char path[64];
	CLEANUP_CLOSE int fd = -EBADF;

	snprintf(path, sizeof path, "/dev/%s", name);
	fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
	return fd < 0;
}

int guest_pmem_list(struct guest_pmem_disk *ret, size_t max)
{
	DIR *d = opendir("/sys/block");
	size_t n = 0;

	if (!d)
		return -errno;
	for (struct dirent *e; n < max && (e = readdir(d));) {
		if (!str_has_prefix(e->d_name, PMEM_PREFIX) ||
			strlen(e->d_name) >= sizeof ret->name)
			continue;
		strcpy(ret[n].name, e->d_name);
		ret[n].bytes = disk_bytes(dirfd(d), e->d_name);
		ret[n].is_used = disk_is_used(e->d_name);
		n++;
	}
	closedir(d);
	return (int)n;
}

int guest_pmem_choose(const struct guest_pmem_disk *disks, size_t n, uint64_t bytes)
{
	int found = -EAGAIN;

	for (size_t i = 0; i < n; i++) {
		if (disks[i].bytes != bytes || disks[i].is_used)
			continue;
		if (found >= 0)
			return -ENOTUNIQ;
		found = (int)i;
	}
	return found;
}

bool guest_pmem_has_drivers(void)
{
	return access("/sys/bus/virtio/drivers/virtio_pmem", F_OK) == 0 &&
	       access("/sys/bus/nd/drivers/nd_pmem", F_OK) == 0;
}
