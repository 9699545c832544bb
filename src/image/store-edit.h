/* Adding to the store and removing from it. */
#pragma once

#include <stdbool.h>

#include "store-index.h"
#include "store.h"

struct store_edit_blob {
	const char *media_type; /* borrowed */
	int fd;                 /* borrowed: a struct store_temp's */
	char digest[STORE_DIGEST_MAX + 1];
	uint64_t size_bytes;
};

/* Fills digest and size_bytes. */
int store_edit_seal(struct store_edit_blob *b);

struct store_edit {
	enum store_index_kind kind;
	const char *name;           /* borrowed, all */
	const char *release;        /* of a kernel */
	struct json_object *config; /* of an image */
	const struct store_edit_blob *blobs;
	size_t n_blobs;
};

/*
 * Adds all blobs, the config and the manifest and gives them the name, taking it from whatever had
 * it. All or nothing. RET_DIGEST: the manifest's.
 */
int store_edit_add(struct store *s, const struct store_edit *e,
	char ret_digest[static STORE_DIGEST_MAX + 1], char **ret_reason);

/* Removes the name, and every blob that no manifest in the index refers to. -ENOENT. */
int store_edit_remove(
	struct store *s, enum store_index_kind kind, const char *ref, char **ret_reason);

/*
 * Removes every blob that no manifest in the index refers to, and what killed builders left. DRY_RUN: only
 * counts. RET_BYTES: what the blobs take on the disk.
 */
int store_edit_prune(struct store *s, bool dry_run, uint64_t *ret_bytes);

/* References (names, digests where there is none) in order of adding; NULL when there are none. */
int store_edit_list(struct store *s, enum store_index_kind kind, char ***ret, char **ret_reason);
