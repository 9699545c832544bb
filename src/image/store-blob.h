/* Blobs: digest, check before first use, adding. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "store.h"

/* SHA-256 of all bytes of FD, whatever its offset, as "sha256:…". */
int store_blob_digest(int fd, char ret[static STORE_DIGEST_MAX + 1]);

/*
 * Gives the unnamed or temporary file FD (flushed, made 0444) the name of DIGEST, which is its own.
 * 1: it is new, 0: that blob was there, sound. Under the index's lock.
 */
int store_blob_link(struct store *s, int fd, const char *digest);

/* Removes the blob and its note. */
void store_blob_unlink(struct store *s, const char *digest);

/* A small blob whole, checked: parsed JSON. -EBADMSG with *RET_REASON. */
struct json_object;
int store_blob_json(
	struct store *s, const char *digest, struct json_object **ret, char **ret_reason);
