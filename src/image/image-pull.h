/*
 * Images from registries and from what other tools have written: skopeo fetches, umoci puts the layers
 * on top of each other, and the tree becomes one EROFS layer.
 */
#pragma once

#include <stdbool.h>

#include "image-build.h"

struct image_pull {
	const char *ref;               /* borrowed, all: as of image_pull_check() */
	const char *name;              /* in the store; NULL: by the reference */
	bool insecure;                 /* plain HTTP and unknown certificates are good enough */
	void (*say)(const char *line); /* what is being done; NULL: nobody listens */
	int progress_fd;               /* takes what skopeo says; -EBADF: nobody */
};

/*
 * A reference is what docker takes ("alpine", "debian:12", "host:5000/name:tag", "name@sha256:…"), or
 * names a transport of skopeo ("docker://…", "oci:DIR:TAG", "oci-archive:FILE", "docker-archive:FILE",
 * "dir:DIR"). *RET_NAME (heap): the name that it gets when no other is said, NULL where none follows
 * from it. -EINVAL with *RET_REASON (static).
 */
int image_pull_check(const char *ref, char **ret_name, const char **ret_reason);

/* As image_build(). */
int image_pull(
	struct store *s, const struct image_pull *p, struct image_built *ret, char **ret_reason);
