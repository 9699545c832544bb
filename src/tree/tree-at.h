/* openat2(2), which no C library wraps. */
#pragma once

#include <linux/openat2.h>
#include <stdint.h>
#include <sys/types.h>

/* Of what lies below a directory: it never leads out of it, and through no link at all. */
#define TREE_AT_BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)

/* A path that somebody names, in the root that DIRFD is: links lead where they would lead there. */
#define TREE_AT_IN_ROOT (RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

/* The descriptor (CLOEXEC), or -errno. */
int tree_at_open(int dirfd, const char *path, uint64_t flags, mode_t mode, uint64_t resolve);

/* The same for the first LEN bytes of PATH; 0 bytes are DIRFD itself. */
int tree_at_open_prefix(int dirfd, const char *path, size_t len, uint64_t flags, uint64_t resolve);
