/*
 * What belongs to a VM beside its memory, into a snapshot and out of it: the contents of its volumes (which the supervisor
 * copied while the guest stood still) and its credentials.
 *
 * A volume that is there is never written over: the VM that is restored has volumes of its own, VOLUME.SNAPSHOT. One of
 * that name is used when it is what it would become, and else refused.
 */
#pragma once

#include "store.h"

struct vm_spec;

#define SNAPSHOT_VOLUMES     "volumes"
#define SNAPSHOT_CREDENTIALS "credentials"

/* Of a volume's content: the same whether it has holes or zeros. 0 or -errno. */
int snapshot_parts_digest(int fd, char ret[static STORE_DIGEST_MAX + 1]);

/* Those that SPEC names, of vms/NAME into the snapshot DIR_FD, and back. 0 or -errno. */
int snapshot_parts_keep_credentials(int dir_fd, const struct vm_spec *spec);
int snapshot_parts_give_credentials(int dir_fd, const struct vm_spec *spec);

/* Makes the volumes, and SPEC name them. FILES: the lines of the manifest. 0, or -errno with *RET_REASON (heap). */
int snapshot_parts_make_volumes(int dir_fd, const char *snapshot, char *const *files,
	struct vm_spec *spec, char **ret_reason);
