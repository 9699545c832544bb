/* Programs and helpers on disk. */
#pragma once

/*
 * NAME's absolute path (heap) in $PATH, else in /usr/sbin and /sbin. -ENOENT. A name with a slash is
 * taken as it is.
 */
int path_find_program(const char *name, char **ret);

/* A helper of uvms itself (uvms-supervisor …): beside the executable, then LIBEXECDIR. */
int path_find_helper(const char *name, char **ret);
