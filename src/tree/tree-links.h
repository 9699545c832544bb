/* Files that were met and have more than one name: by inode, the name that was met first. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#define TREE_LINKS_MAX       65536
#define TREE_LINKS_BYTES_MAX (8 * 1024 * 1024) /* of names */

struct tree_links {
	struct tree_link *table; /* owned; open addressing, a power of two */
	size_t n, size, bytes;
};

/* The first name of that inode, or NULL. */
const char *tree_links_find(const struct tree_links *l, dev_t dev, ino_t ino);

/* 0; -E2BIG: as many as may be are known; -ENOMEM. */
int tree_links_add(struct tree_links *l, dev_t dev, ino_t ino, const char *name);
void tree_links_finish(struct tree_links *l);
