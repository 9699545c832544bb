/* Puts a kernel with its modules into the store. */
#pragma once

#include "store.h"

struct kernel_add {
	const char *name;       /* borrowed, all; NULL: the release */
	const char *file;       /* one of these four: a file, with… */
	const char *modules;    /* …lib/modules/RELEASE */
	const char *from_deb;   /* a package; "": the default one */
	const char *from_boot;  /* a release of the host; "": the newest */
	const char *from_image; /* an image in the store */
	void (*say)(const char *line);
};

struct kernel_added {
	char *name;    /* owned */
	char *release; /* owned */
	char digest[STORE_DIGEST_MAX + 1];
	char *note; /* why the kernel proper could not be had; NULL: it could */
	size_t n_modules;
	uint64_t kernel_bytes, modules_bytes;
};

/* Errors as of image_build(). */
int kernel_add(
	struct store *s, const struct kernel_add *k, struct kernel_added *ret, char **ret_reason);
void kernel_added_finish(struct kernel_added *k);
