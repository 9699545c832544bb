/*
 * A layer: a directory tree as one EROFS file system. Equal trees (contents, owners, modes, times,
 * extended attributes) give equal bytes.
 */
#pragma once

#include <stdbool.h>

#include "store-edit.h"
#include "store-temp.h"

struct layer_source {
	int dir;          /* borrowed: below which… */
	const char *tree; /* …this directory is */
	bool mapped;      /* its owners are subordinate ids: read it inside the namespace */
	uint64_t epoch;   /* seconds: later times become this one; 0: they stay */
};

/* Needs mkfs.erofs. RET_TEMP holds the file, RET_BLOB says what it is. */
int layer_build(struct store *s, const struct layer_source *source, struct store_temp *ret_temp,
	struct store_edit_blob *ret_blob, char **ret_reason);
