/* A Debian tree by mmdebstrap, with the owners and modes that the packages want. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct image_debian {
	const char *suite;          /* borrowed, all */
	const char *const *include; /* packages; NULL: none */
	const char *script;         /* a file that runs in the tree; NULL: none */
	bool mapped;                /* as an ordinary user, with subordinate ids */
	void (*say)(const char *line);
};

/* -ENOPKG with *RET_REASON: a tool is missing. */
int image_debian_require(bool mapped, char **ret_reason);

/*
 * Makes the directory TREE below WORK. RET_EPOCH: the date of the archive, later than which no file
 * should be. Errors as of image_build().
 */
int image_debian_tree(const struct image_debian *d, int work, const char *tree, uint64_t *ret_epoch,
	char **ret_reason);
