#include "path.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "str.h"

/* 0 when DIR/NAME can be executed; LEN bytes of DIR count. */
static int path_try(const char *dir, size_t len, const char *name, char **ret)
{
	char *p = str_printf("%.*s/%s", (int)len, dir, name);

	if (!p)
		return -ENOMEM;
	if (len > 0 && access(p, X_OK) == 0) {
		*ret = p;
		return 0;
	}
	free(p);
	return -ENOENT;
}

static int path_beside_self(const char *name, char **ret)
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	char *slash;

	if (n < 0)
		return -ENOENT;
	self[n] = 0;
	slash = strrchr(self, '/');
	return slash ? path_try(self, (size_t)(slash - self), name, ret) : -ENOENT;
}

int path_find_program(const char *name, char **ret)
{
	const char *p = getenv("PATH");

	if (strchr(name, '/')) {
		*ret = strdup(name);
		return !*ret ? -ENOMEM : access(name, X_OK) == 0 ? 0 : -ENOENT;
	}
	for (p = p ? p : "/usr/local/bin:/usr/bin:/bin"; *p;) {
		size_t len = strcspn(p, ":");

		if (path_try(p, len, name, ret) == 0)
			return 0;
		p += len + (p[len] == ':');
	}
	if (path_try("/usr/sbin", 9, name, ret) == 0)
		return 0;
	return path_try("/sbin", 5, name, ret);
}

int path_find_helper(const char *name, char **ret)
{
	if (path_beside_self(name, ret) == 0)
		return 0;
	return path_try(UVMS_LIBEXECDIR, strlen(UVMS_LIBEXECDIR), name, ret);
}
