/* Where a kernel comes from: each source yields the file and its lib/modules/RELEASE. */
#pragma once

#include "store-temp.h"

struct kernel_source {
	int kernel, modules;    /* owned: a file and a directory */
	struct store_temp work; /* owned: where they lie, if in a temporary directory */
};

#define KERNEL_SOURCE_IDLE                                                                         \
	{                                                                                          \
		-EBADF, -EBADF, STORE_TEMP_IDLE                                                    \
	}

/* Errors as of image_build(). RELEASE and PACKAGE may be "": the newest, the default one. */
int kernel_source_files(
	const char *file, const char *modules, struct kernel_source *ret, char **ret_reason);
int kernel_source_boot(const char *release, struct kernel_source *ret, char **ret_reason);
int kernel_source_deb(struct store *s, const char *package, void (*say)(const char *line),
	struct kernel_source *ret, char **ret_reason);
int kernel_source_image(struct store *s, const char *image, void (*say)(const char *line),
	struct kernel_source *ret, char **ret_reason);
void kernel_source_finish(struct kernel_source *k);
