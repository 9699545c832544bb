/*
 * Volumes: writable disks that outlive the VMs that use them.
 *
 * STATE/volumes/NAME/disk is a sparse raw file with an ext4 file system. Whoever uses one holds a
 * lock (lock.h) on the open file, which every process that inherits the descriptor shares: it is free exactly
 * when the last of them is gone. It is made under another name and renamed, so a volume that is there
 * is whole.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VOLUME_DEFAULT_BYTES (UINT64_C(1) << 30)

struct volume {
	char *name;          /* owned */
	uint64_t size_bytes; /* as the guest sees it */
	uint64_t used_bytes; /* on the host's disk */
	bool in_use;
};

/*
 * Opens NAME for its one writer, and makes it before when there is none (SIZE_BYTES 0: VOLUME_DEFAULT_BYTES).
 * VOLUMES_FD: the directory (borrowed). Descriptor; with *RET_REASON (heap): -EBUSY, another VM has it;
 * -EEXIST, it has another size; -ENOPKG, mkfs.ext4 is not installed; others.
 */
int volume_open(int volumes_fd, const char *name, uint64_t size_bytes, char **ret_reason);

/* Of NAME, for reading, beside its writer; whose it is and what he does is the caller's matter. Descriptor or -errno. */
int volume_open_beside(int volumes_fd, const char *name);

/* Makes NAME with the content of the file FROM_FD. -EEXIST with *RET_REASON (heap): there is one. */
int volume_make_from(int volumes_fd, const char *name, int from_fd, char **ret_reason);

/* -ENOENT: there is none. */
int volume_look(int volumes_fd, const char *name, struct volume *ret);
void volume_finish(struct volume *v);

/* Names in order, NULL-terminated; NULL when there are none. */
int volume_list(int volumes_fd, char ***ret);

/* -EBUSY: a VM uses it; -ENOENT. */
int volume_remove(int volumes_fd, const char *name);
