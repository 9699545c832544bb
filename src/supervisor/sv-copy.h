/*
 * Volumes into a snapshot: by a process of its own, since that may take long; as the VM, with nothing but the
 * descriptors. Descriptor 3 + 2i of it is a volume, 4 + 2i the empty file that becomes its copy.
 */
#pragma once

#include <stddef.h>

struct sv;

/* That process; says what is wrong on stderr. 0 or -errno. */
int sv_copy_run(size_t n);

/* Starts it for all volumes of the VM, into files of their names below DIR_FD. Its end comes to sv->snapshot.copy. */
int sv_copy_start(struct sv *sv, int dir_fd);
