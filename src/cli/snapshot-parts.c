#include "snapshot-parts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "file.h"
#include "sha256.h"
#include "str.h"
#include "vm-dirs.h"
#include "vm-spec.h"
#include "vm-volume.h"
#include "volume.h"

#define BLOCK_BYTES 65536

/* digests */

static int hash_number(struct sha256 *hash, uint64_t n)
{
	uint8_t bytes[8];

	for (size_t i = 0; i < sizeof bytes; i++)
		bytes[i] = (uint8_t)(n >> (8 * i));
	return sha256_update(hash, bytes, sizeof bytes);
}

/* Where it is, and what it has; nothing when that is zeros. */
static int hash_block(struct sha256 *hash, int fd, off_t at, uint8_t *block)
{
	ssize_t n = pread(fd, block, BLOCK_BYTES, at);
	int r;

	if (n < 0)
		return -errno;
	if (n == 0 || (block[0] == 0 && memcmp(block, block + 1, (size_t)n - 1) == 0))
		return 0;
	r = hash_number(hash, (uint64_t)at);
	return r < 0 ? r : sha256_update(hash, block, (size_t)n);
}

static int hash_content(struct sha256 *hash, int fd, off_t size)
{
	CLEANUP_FREE uint8_t *block = malloc(BLOCK_BYTES);
	off_t at = 0, end;
	int r = block ? hash_number(hash, (uint64_t)size) : -ENOMEM;

	while (r == 0 && at < size) {
		at = lseek(fd, at, SEEK_DATA);
		if (at < 0)
			return errno == ENXIO ? 0 : -errno; /* nothing but a hole */
		end = lseek(fd, at, SEEK_HOLE);
		if (end < 0)
			return -errno;
		for (at -= at % BLOCK_BYTES; r == 0 && at < end; at += BLOCK_BYTES)
			r = hash_block(hash, fd, at, block);
	}
	return r;
}

int snapshot_parts_digest(int fd, char ret[static STORE_DIGEST_MAX + 1])
{
	CLEANUP(sha256_finish) struct sha256 hash = { 0 };
	uint8_t sum[SHA256_BYTES];
	struct stat st;
	int r = fstat(fd, &st) < 0 ? -errno : sha256_begin(&hash);

	if (r == 0)
		r = hash_content(&hash, fd, st.st_size);
	if (r == 0)
		r = sha256_end(&hash, sum);
	if (r < 0)
		return r;
	memcpy(ret, "sha256:", 7);
	str_hex(ret + 7, sum, sizeof sum);
	return 0;
}

/* credentials */

static int copy_secret(int from, int to, const char *name)
{
	CLEANUP_FREE char *data = NULL;
	size_t len;
	int r = file_read_at(from, name, VM_CREDENTIAL_MAX_BYTES, &data, &len);

	if (r < 0)
		return r;
	r = file_write_at(to, name, data, len, 0400);
	explicit_bzero(data, len);
	return r;
}

static int copy_secrets(int from_dir, int to_dir, const struct vm_spec *spec)
{
	CLEANUP_CLOSE int from = -EBADF, to = -EBADF;
	int r = 0;

	if (!spec->credentials)
		return 0;
	from = openat(
		from_dir, SNAPSHOT_CREDENTIALS, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (from < 0)
		return -errno;
	to = file_mkdir_at(to_dir, SNAPSHOT_CREDENTIALS, 0700);
	if (to < 0)
		return to;
	for (char **c = spec->credentials; r == 0 && *c; c++)
		r = copy_secret(from, to, *c);
	return r;
}

int snapshot_parts_keep_credentials(int dir_fd, const struct vm_spec *spec)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), spec->name, false);

	return vm < 0 ? vm : copy_secrets(vm, dir_fd, spec);
}

int snapshot_parts_give_credentials(int dir_fd, const struct vm_spec *spec)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(cli_dirs(), spec->name, true);

	return vm < 0 ? vm : copy_secrets(dir_fd, vm, spec);
}

/* volumes */

/* The line of it, "DIGEST SIZE volumes/NAME": its digest. Borrowed. */
static const char *line_of(char *const *files, const char *volume)
{
	CLEANUP_FREE char *end = str_printf(" " SNAPSHOT_VOLUMES "/%s", volume);

	for (; end && files && *files; files++) {
		size_t n = strlen(*files), m = strlen(end);

		if (n > m && str_eq(*files + n - m, end))
			return *files;
	}
	return NULL;
}

/* One that is there already: 0 when it is what it would become. */
static int look_at(int volumes, const char *name, const char *line, char **ret_reason)
{
	CLEANUP_CLOSE int fd = volume_open(volumes, name, 0, ret_reason);
	char digest[STORE_DIGEST_MAX + 1];
	int r = fd < 0 ? fd : snapshot_parts_digest(fd, digest);

	if (r < 0)
		return r;
	if (strncmp(line, digest, strlen(digest)) == 0)
		return 0;
	*ret_reason =
		str_printf("the volume %s, which the restored VM would have, is there and has "
			   "something else in it: uvms volume rm it",
			name);
	return -EEXIST;
}

static int make_volume(
	int from_dir, const char *name, const char *new_name, const char *line, char **ret_reason)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(cli_dirs(), "volumes"), from = -EBADF;
	CLEANUP_FREE char *reason = NULL;
	int r;

	from = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (from < 0 || volumes < 0)
		return from < 0 ? -errno : volumes;
	r = volume_make_from(volumes, new_name, from, &reason);
	if (r == -EEXIST)
		return look_at(volumes, new_name, line, ret_reason);
	*ret_reason = TAKE_PTR(reason);
	return r;
}

static int rename_volume(char **volume, const char *new_name)
{
	char *path = strchr(*volume, ':'), *text;

	text = path ? str_printf("%s%s", new_name, path) : NULL;
	if (!text)
		return -ENOMEM;
	free(*volume);
	*volume = text;
	return 0;
}

static int restore_volume(
	int from_dir, const char *snapshot, char *const *files, char **volume, char **ret_reason)
{
	CLEANUP_FREE char *new_name = NULL;
	struct vm_volume v;
	const char *reason, *line;
	int r;

	if (vm_volume_parse(*volume, &v, &reason) < 0)
		return -EBADMSG;
	line = line_of(files, v.name);
	new_name = str_printf("%s.%s", v.name, snapshot);
	if (!line || !new_name)
		return new_name ? -EBADMSG : -ENOMEM;
	if (vm_volume_check_name(new_name) < 0) {
		*ret_reason = str_printf("\"%s\", the name of a volume of the restored VM, is too "
					 "long: give the snapshot's directory a shorter one",
			new_name);
		return -ENAMETOOLONG;
	}
	r = make_volume(from_dir, v.name, new_name, line, ret_reason);
	return r < 0 ? r : rename_volume(volume, new_name);
}

int snapshot_parts_make_volumes(int dir_fd, const char *snapshot, char *const *files,
	struct vm_spec *spec, char **ret_reason)
{
	CLEANUP_CLOSE int dir = -EBADF;
	int r = 0;

	if (!spec->volumes)
		return 0;
	dir = openat(dir_fd, SNAPSHOT_VOLUMES, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (dir < 0)
		return -errno;
	for (char **v = spec->volumes; r == 0 && *v; v++)
		r = restore_volume(dir, snapshot, files, v, ret_reason);
	return r;
}
