#include "guest-path.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool guest_path_next(const char **path, const char *name, char buf[static PATH_MAX])
{
	while (*path) {
		const char *dir = *path;
		int len = (int)strcspn(dir, ":"), n;

		*path = dir[len] == ':' ? dir + len + 1 : NULL;
		if (strchr(name, '/')) {
			*path = NULL;
			len = -1;
		}
		if (len <= 0)
			n = snprintf(buf, PATH_MAX, "%s%s", len < 0 ? "" : "./", name);
		else
			n = snprintf(buf, PATH_MAX, "%.*s/%s", len, dir, name);
		if (n > 0 && n < PATH_MAX)
			return true;
	}
	return false;
}

int guest_path_exit_code(int error)
{
	return error == ENOENT || error == ENOTDIR ? 127 : 126;
}

int guest_path_exec(const char *path, char *const argv[], char *const env[])
{
	char candidate[PATH_MAX];
	int error = ENOENT;

	if (argv[0][0] == '\0')
		return ENOENT;
	while (guest_path_next(&path, argv[0], candidate)) {
		execve(candidate, argv, env);
		if (errno != ENOENT && errno != ENOTDIR)
			error = errno;
		if (error != ENOENT && error != EACCES)
			break;
	}
	return error;
}
