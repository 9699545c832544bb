/* Whole files, atomically, below a directory descriptor. 0 or -errno. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/*
 * Reads NAME below DIRFD whole: -EFBIG above MAX bytes, never follows a last symlink. *RET_DATA is
 * on the heap and NUL-terminated beyond *RET_LEN (which may be NULL).
 */
int file_read_at(int dirfd, const char *name, size_t max, char **ret_data, size_t *ret_len);

/* The same from an open descriptor, from its present offset. */
int file_read_fd(int fd, size_t max, char **ret_data, size_t *ret_len);

/* Writes a temporary file and renames it to NAME; a failure leaves neither behind. */
int file_write_at(int dirfd, const char *name, const void *data, size_t len, mode_t mode);

/* Opens (and first makes) the directory NAME below DIRFD, O_NOFOLLOW. Returns the descriptor. */
int file_mkdir_at(int dirfd, const char *name, mode_t mode);

/* mkdir -p, and opens the last one. Intermediate directories get mode 0755. */
int file_mkdir_path(const char *path, mode_t mode);

/*
 * The names in NAME below DIRFD (".": DIRFD itself), sorted, without "." and ".."; NULL-terminated, NULL when there are
 * none. -E2BIG: more than MAX. Never follows a last symlink.
 */
int file_list_at(int dirfd, const char *name, size_t max, char ***ret);

/*
 * FROM's content into the empty TO, both regular: as a reflink where the file system has them, else only what is no hole.
 * TO comes to have the same size, and is on the disk when it returns. 0 or -errno.
 */
int file_clone_fd(int from, int to);

/* Removes NAME and all below it, staying below DIRFD. 0 when it is not there. */
int file_remove_tree_at(int dirfd, const char *name);
