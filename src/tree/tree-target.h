/* Where a copied tree goes: the rules of cp(1) for its last argument. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct tree_target {
	int fd;              /* owned; the directory that entries are made in */
	bool made;           /* it was made for this copy */
	bool only_directory; /* it was named with a '/' at the end */
	char rename_to[256]; /* what the first component of every name becomes; "": it stays */
};

/*
 * PATH, below DIRFD or as RESOLVE says (openat2(2)). An existing directory: things go into it. With
 * CONTENTS it is made if it is not there; with DIRECTORY it has to be. Else its parent has to be, and
 * what comes gets its last name. 0 or -errno: -ENOENT, -ENOTDIR, ….
 */
int tree_target_open(int dirfd, const char *path, uint64_t resolve, bool contents, bool directory,
	struct tree_target *ret);
void tree_target_close(struct tree_target *t);
