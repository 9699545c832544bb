/*
 * What an image says about running it: the `config` of an OCI image configuration (image-spec 1.1,
 * config.md). Only the fields named here are kept; everything else in a foreign configuration is
 * dropped, never passed on.
 */
#pragma once

#include <stddef.h>

struct json_object;

struct image_config {
	char **entrypoint, **cmd, **env; /* owned, all; NULL: not said */
	char *workdir, *user;
};

/*
 * From the whole configuration object, which is hostile: wrong types, strings above 4 KiB and vectors
 * above 1024 entries are -EBADMSG with *RET_BAD (static) naming the field.
 */
int image_config_read(
	struct json_object *configuration, struct image_config *ret, const char **ret_bad);

/* Sets the fields in `config` of an OCI configuration that is being made. 0 or -ENOMEM. */
int image_config_write(const struct image_config *c, struct json_object *config);
void image_config_finish(struct image_config *c);
