#include "sv-lend.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "store.h"
#include "str.h"
#include "sv.h"

#define LENT_MAX 1024 /* names; a life has at most SV_SHARES_MAX */

int sv_lend_store(const struct sv *sv, struct store **ret)
{
	CLEANUP_CLOSE int state = open(sv->dirs.state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return state < 0 ? -errno : store_open(state, ret);
}

int sv_lend_open(const struct sv *sv)
{
	CLEANUP_CLOSE int fd = file_mkdir_at(sv->vm_fd, SV_LENT, 0700);

	if (fd < 0)
		return fd;
	if (geteuid() == 0 && (fchown(fd, 0, sv->status.uid) < 0 || fchmod(fd, 0710) < 0))
		return -errno;
	return TAKE_FD(fd);
}

int sv_lend(struct sv *sv, struct store *store, const char *digest, int fd, char **ret_path,
	char **ret_reason)
{
	CLEANUP_CLOSE int dir = sv_lend_open(sv);
	CLEANUP_FREE char *path = str_printf("%s/vms/%s/" SV_LENT "/%s", sv->dirs.state,
		sv->spec.name, digest + strlen("sha256:"));
	int r = dir < 0 ? dir : path ? store_lend_blob(store, digest, fd, dir) : -ENOMEM;

	if (r == -EXDEV)
		*ret_reason = str_printf(
			"%s/vms and %s/store are on different file systems: the VMM cannot reach "
			"the image",
			sv->dirs.state, sv->dirs.state);
	if (r == 0)
		*ret_path = TAKE_PTR(path);
	return r;
}

void sv_lend_end(struct sv *sv, const char *digest)
{
	CLEANUP(store_closep) struct store *store = NULL;
	CLEANUP(strv_freep) char **all = NULL;
	CLEANUP_CLOSE int dir =
		openat(sv->vm_fd, SV_LENT, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);

	if (dir < 0 || sv_lend_store(sv, &store) < 0)
		return;
	if (digest) {
		store_unlend_blob(store, digest, dir);
		return;
	}
	(void)file_list_at(dir, ".", LENT_MAX, &all);
	for (char **name = all; name && *name; name++) {
		CLEANUP_FREE char *found = str_printf("sha256:%s", *name);

		if (found)
			store_unlend_blob(store, found, dir);
	}
}
