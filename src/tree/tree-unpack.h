/*
 * A tar stream becomes files, below one directory and nowhere else.
 *
 * Theory of operation. The stream is hostile. A name is taken apart: empty components, "." and a leading
 * "/" go, ".." refuses the entry; where only one thing is expected, names that do not begin with it
 * are refused too. The directory that an entry goes into is opened by openat2(2) with
 * RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS, so that neither a link that came with the stream nor one that
 * somebody puts there meanwhile is followed. The last component is made with O_EXCL, after unlinking
 * what is no directory: no existing file is written to. A hard link's other name goes the same way.
 * Symbolic links keep their text, whatever it is. Device nodes are never made.
 *
 * What fails for one entry is noted, and the stream goes on; what the next one would meet too (no
 * space …) or what is malformed ends it. A file that is not whole at the end is removed.
 * Directories get their mode and times when the stream leaves them; for that their way is kept: a stack
 * no deeper than a name is long.
 */
#pragma once

#include "tree-note.h"
#include "tree-target.h"

#include <stddef.h>

struct tree_unpack;

struct tree_unpack_config {
	const struct tree_target *target; /* borrowed */
	const char *only;        /* borrowed: the one first component that may come; NULL: any */
	bool owner;              /* keep owners, setuid and setgid bits */
	struct tree_notes notes; /* called meanwhile */
};

int tree_unpack_create(const struct tree_unpack_config *c, struct tree_unpack **ret);

/* 0, or -errno: the stream cannot go on. -EBADMSG: it is malformed. */
int tree_unpack_push(struct tree_unpack *u, const void *bytes, size_t n);

/* No more comes: -EBADMSG when that is in the middle of an entry. */
int tree_unpack_end(struct tree_unpack *u);

/* Removes the file that is not whole, gives directories what is theirs. */
void tree_unpack_destroy(struct tree_unpack *u);

const char *tree_unpack_path(
	const struct tree_unpack *u); /* the present entry's, below the target */
uint64_t tree_unpack_entries(const struct tree_unpack *u);

static inline void tree_unpack_destroyp(struct tree_unpack **u)
{
	tree_unpack_destroy(*u);
}
