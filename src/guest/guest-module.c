#include "guest-module.h"

#include "cleanup.h"
#include "file.h"
#include "guest-stop.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#define LIST_MAX (64 * 1024)

static int module_load(int dir, const char *name)
{
	CLEANUP_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST)
		return -errno;
	return 0;
}

int guest_module_load_all(const char *list, const char *dir)
{
	CLEANUP_CLOSE int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	CLEANUP_FREE char *text = NULL;
	char *rest, *name;
	int r;

	r = file_read_at(AT_FDCWD, list, LIST_MAX, &text, NULL);
	if (r < 0)
		return r;
	rest = text;
	while ((name = strsep(&rest, "\n"))) {
		if (*name == '\0')
			continue;
		r = module_load(dir_fd, name);
		if (r < 0)
			guest_stop_warn("module %s: %s", name, strerror(-r));
	}
	return 0;
}
