/* index.json: which manifests there are, under which names, of which kind. */
#pragma once

#include <stdint.h>

#include "store.h"

struct json_object;

enum store_index_kind {
	STORE_INDEX_IMAGE,
	STORE_INDEX_KERNEL,
};

/* Waits for the lock on the index and the set of blobs. A descriptor; closing it unlocks. */
int store_index_lock(struct store *s);

/* -EBADMSG with *RET_REASON when it is damaged. */
int store_index_read(struct store *s, struct json_object **ret, char **ret_reason);
int store_index_write(struct store *s, struct json_object *index);

/* Descriptors in order of adding: borrowed from INDEX, NULL behind the last. */
struct json_object *store_index_nth(
	struct json_object *index, enum store_index_kind kind, size_t n);

/* By name or digest prefix. -ENOENT, -ENOTUNIQ (a prefix of several). */
int store_index_find(struct json_object *index, enum store_index_kind kind, const char *ref,
	struct json_object **ret);

/* Puts DESCRIPTOR (consumed, annotated with a name) at the end, in place of one of that name. */
int store_index_put(
	struct json_object *index, enum store_index_kind kind, struct json_object *descriptor);
void store_index_drop(struct json_object *index, struct json_object *descriptor);
