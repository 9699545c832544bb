#include "guest-creds.h"

#include "cleanup.h"
#include "file.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEPT           "credentials"
#define PLACE          "/run/credentials/@system"
#define CREDENTIAL_MAX (1024 * 1024)

static bool placed;

void guest_creds_keep(void)
{
	(void)rename(BOOT_DESC_CREDENTIALS, "/" KEPT);
}

static int copy_one(int from, int to, const char *name)
{
	CLEANUP_FREE char *data = NULL;
	size_t len;
	int r;

	r = file_read_at(from, name, CREDENTIAL_MAX, &data, &len);
	if (r == 0)
		r = file_write_at(to, name, data, len, 0400);
	if (data)
		explicit_bzero(data, len);
	return r;
}

/* Calls FN(dir, other, name) for each file of DIR. */
static int each(int dir, int other, int (*fn)(int dir, int other, const char *name))
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = copy < 0 ? NULL : fdopendir(copy);

	if (!d)
		return -errno;
	for (struct dirent *e; r == 0 && (e = readdir(d));) {
		if (e->d_name[0] != '.')
			r = fn(dir, other, e->d_name);
	}
	closedir(d);
	return r;
}

/* systemd.system-credentials(7) */
static int place_identity(int to, const struct boot_desc *d)
{
	char id[2 * BOOT_DESC_MACHINE_ID + 1];
	int r;

	str_hex(id, d->machine_id, sizeof d->machine_id);
	r = file_write_at(to, "system.machine_id", id, strlen(id), 0400);
	return r < 0 ? r
		     : file_write_at(to, "system.hostname", d->hostname.s, d->hostname.len, 0400);
}

int guest_creds_place(int old_root, const struct boot_desc *d)
{
	CLEANUP_CLOSE int from =
		openat(old_root, KEPT, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	CLEANUP_CLOSE int to = -EBADF;
	int r;

	if (from < 0)
		return errno == ENOENT ? 0 : -errno;
	to = file_mkdir_path(PLACE, 0700);
	if (to < 0)
		return to;
	r = each(from, to, copy_one);
	if (r == 0 && d->mode == BOOT_DESC_INIT)
		r = place_identity(to, d);
	if (r == 0)
		r = file_remove_tree_at(old_root, KEPT);
	placed = r == 0;
	return r;
}

const char *guest_creds_directory(void)
{
	return placed ? PLACE : NULL;
}

struct owner {
	uid_t uid;
	gid_t gid;
};

static struct owner new_owner;

static int give_one(int dir, int other, const char *name)
{
	return fchownat(dir, name, new_owner.uid, new_owner.gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno
											  : 0;
}

int guest_creds_give(uid_t uid, gid_t gid)
{
	CLEANUP_CLOSE int dir = -EBADF;

	if (!placed)
		return 0;
	dir = open(PLACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	if (fchown(dir, uid, gid) < 0)
		return -errno;
	new_owner = (struct owner){ uid, gid };
	return each(dir, -EBADF, give_one);
}
