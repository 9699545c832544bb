/* What can be mounted in a guest that runs (sv-share): opened, and found to be of use, before anything is touched. */
#pragma once

#include <stdbool.h>

struct sv;
struct sv_share;

/* Where in the guest: absolute, one spelling. -EINVAL with *RET_REASON (heap). */
int sv_source_check_path(const char *path, char **ret_reason);

/* Whether one of the VM's volumes is mounted there from its start. */
bool sv_source_is_volume(const struct sv *sv, const char *path);

/* The host's DIRECTORY becomes s->fd and, as it is called now, s->source. -errno with *RET_REASON (heap). */
int sv_source_directory(struct sv_share *s, const char *directory, char **ret_reason);

/*
 * The only layer of the image s->source becomes s->fd, ->digest and ->bytes; *RET_PATH (heap) is where a VMM finds it
 * that opens it itself, else NULL. -errno with *RET_REASON (heap or NULL).
 */
int sv_source_image(struct sv *sv, struct sv_share *s, char **ret_path, char **ret_reason);
