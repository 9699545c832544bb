/* Where a program's name may be found. */
#pragma once

#include <limits.h>
#include <stdbool.h>

#define GUEST_PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/*
 * Writes the next candidate for NAME to BUF. *PATH is the rest of $PATH and moves on; it is NULL after
 * the last one. A name with a slash is its own only candidate. Entries too long are left out; an
 * empty entry is the working directory.
 */
bool guest_path_next(const char **path, const char *name, char buf[static PATH_MAX]);

/* The user's exit status for a failed execve(): 127 not found, 126 for everything else. */
int guest_path_exit_code(int error);

/*
 * execve() of each candidate in turn. Returns the errno that tells most: a file that is there but may
 * not be executed wins over one that is not there.
 */
int guest_path_exec(const char *path, char *const argv[], char *const env[]);
