/* Makes images out of directories and packages and puts them into the store. */
#pragma once

#include <stdbool.h>

#include "store.h"

struct image_build {
	const char *name;              /* borrowed, all */
	const char *from_dir;          /* one of these two */
	const char *from_debian;       /* a suite */
	const char *const *include;    /* packages; NULL: none */
	const char *script;            /* a file that runs in the tree; NULL: none */
	void (*say)(const char *line); /* what is being done; NULL: nobody listens */
};

struct image_built {
	char digest[STORE_DIGEST_MAX + 1];
	uint64_t size_bytes;
};

struct json_object;

/* An OCI configuration of one layer with an empty `config`; NULL without memory. */
struct json_object *image_build_configuration(const char *diff_id);

/*
 * 0, or with *RET_REASON (heap, may stay NULL): -ENOPKG, a tool is not installed; -EIO, one failed;
 * -EINTR, a signal came; others as of the store.
 */
int image_build(
	struct store *s, const struct image_build *b, struct image_built *ret, char **ret_reason);
