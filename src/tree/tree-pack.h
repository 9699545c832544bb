/*
 * A file or a tree becomes a tar stream, pulled in pieces.
 *
 * Theory of operation. The tree is walked depth first, through descriptors and O_NOFOLLOW: what is renamed
 * or replaced meanwhile cannot lead the walk elsewhere. Of each directory on the way only its place in
 * getdents64(2) is kept; beyond TREE_PACK_OPEN levels it is closed and opened again by its way from the
 * top, and has to be the same one then. An entry that cannot be read is noted and left out; one that
 * fails after its header was written, or shrinks, is filled up with zeros and noted.
 *
 * Memory: buffers of a fixed size, 32 bytes for each level, and the names of files with several links
 * (tree-links.h).
 */
#pragma once

#include "tree-note.h"

#include <stddef.h>
#include <sys/types.h>

#define TREE_PACK_OPEN 8

struct tree_pack;

struct tree_pack_config {
	bool follow;             /* if what is named is a link, take what it points to */
	bool one_fs;             /* do not enter other file systems */
	struct tree_notes notes; /* called meanwhile */
};

/* What the last component of a path stands for. */
struct tree_pack_name {
	char name[256]; /* "" with contents */
	bool contents; /* it ends in ".", ".." or is "/": what is in it, under no name of its own */
	bool directory; /* it ends in '/' and has to be one */
};

int tree_pack_name_of(const char *path, struct tree_pack_name *ret); /* 0, -ENOENT, -ENAMETOOLONG */

int tree_pack_create(const struct tree_pack_config *c, struct tree_pack **ret);
void tree_pack_destroy(struct tree_pack *p);

/*
 * Begins with PATH below DIRFD, or as RESOLVE says (openat2(2)). May be called again when the one before
 * is at its end; hard links between them are kept.
 */
int tree_pack_start(struct tree_pack *p, int dirfd, const char *path, uint64_t resolve);

/* Fills at most SIZE bytes of BUF, and less only at the end: 0 then. */
ssize_t tree_pack_pull(struct tree_pack *p, void *buf, size_t size);

const char *tree_pack_path(const struct tree_pack *p); /* the present entry's name */
uint64_t tree_pack_entries(const struct tree_pack *p);

static inline void tree_pack_destroyp(struct tree_pack **p)
{
	tree_pack_destroy(*p);
}
