#include "sv-copy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "log.h"
#include "path.h"
#include "spawn.h"
#include "str.h"
#include "sv-children.h"
#include "sv.h"
#include "volume.h"

int sv_copy_run(size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = file_clone_fd((int)(3 + 2 * i), (int)(4 + 2 * i));

		if (r < 0) {
			log_error("volume %zu cannot be copied: %s", i, strerror(-r));
			return r;
		}
	}
	return 0;
}

static int open_pair(int volumes, int dir, const char *spec, int fds[static 2])
{
	struct vm_volume v;
	const char *reason;

	if (vm_volume_parse(spec, &v, &reason) < 0)
		return -EINVAL;
	fds[0] = volume_open_beside(volumes, v.name);
	if (fds[0] < 0)
		return fds[0];
	fds[1] = openat(dir, v.name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	return fds[1] < 0 ? -errno : 0;
}

static int start(struct sv *sv, const int *fds, size_t n)
{
	CLEANUP_FREE char *program = NULL;
	char number[24];
	int given[SPAWN_FDS_MAX], r = path_find_helper("uvms-supervisor", &program);
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 } };
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program,
		.argv = (const char *[]){ "uvms-supervisor", "--copy-fds", number, sv->spec.name,
			NULL },
		.fds = given, .n_fds = n, .limits = limits, .n_limits = ARRAY_SIZE(limits) };

	if (r < 0)
		return r;
	snprintf(number, sizeof number, "%zu", n / 2);
	memcpy(given, fds, n * sizeof *fds);
	sv_child_confine(&sv->snapshot.copy, &spawn);
	return sv_child_start(&sv->snapshot.copy, &spawn);
}

int sv_copy_start(struct sv *sv, int dir_fd)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(&sv->dirs, "volumes");
	int fds[2 * VM_VOLUMES_MAX], r = volumes < 0 ? volumes : 0;
	size_t n = 0;

	memset(fds, -1, sizeof fds);
	for (char **v = sv->spec.volumes; r == 0 && v && *v; v++, n += 2)
		r = open_pair(volumes, dir_fd, *v, fds + n);
	if (r == 0)
		r = start(sv, fds, n);
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		fd_close(fds[i]);
	return r;
}
