/*
 * A blob's name is its SHA-256, so whoever checks it needs no other record. Hashing hundreds of MiB
 * at each start would be dear: a check leaves a note, verified/HEX, with what stat(2) says of the
 * file. Any write, truncation or exchange since changes the times or the inode, and the file is
 * hashed again. This guards against damage and against other users, not against somebody who may
 * write into the store: he may change the index as well.
 */
#include "store-blob.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "oci.h"
#include "sha256.h"
#include "spawn.h"
#include "store-impl.h"
#include "str.h"

#define STORE_BLOB_JSON_MAX (4 << 20) /* bytes: manifests and configs */
#define STORE_BLOB_CHUNK    (1 << 20)

struct store_blob_note {
	char text[160];
};

static int store_blob_hash(int fd, struct sha256 *hash)
{
	CLEANUP_FREE char *buf = malloc(STORE_BLOB_CHUNK);
	off_t at = 0;

	if (!buf)
		return -ENOMEM;
	for (;;) {
		ssize_t n = pread(fd, buf, STORE_BLOB_CHUNK, at);
		int r;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		r = sha256_update(hash, buf, (size_t)n);
		if (r < 0)
			return r;
		at += n;
	}
}

int store_blob_digest(int fd, char ret[static STORE_DIGEST_MAX + 1])
{
	CLEANUP(sha256_finish) struct sha256 hash = { 0 };
	uint8_t sum[SHA256_BYTES];
	int r;

	r = sha256_begin(&hash);
	if (r == 0)
		r = store_blob_hash(fd, &hash);
	if (r == 0)
		r = sha256_end(&hash, sum);
	if (r < 0)
		return r;
	memcpy(ret, "sha256:", 7);
	str_hex(ret + 7, sum, sizeof sum);
	return 0;
}

static int store_blob_describe(int fd, struct store_blob_note *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	snprintf(ret->text, sizeof ret->text, "%lld %lld.%09ld %lld.%09ld %llu %llx\n",
		(long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec,
		(long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec, (unsigned long long)st.st_ino,
		(unsigned long long)st.st_dev);
	return 0;
}

static bool store_blob_is_noted(struct store *s, const char *hex, const struct store_blob_note *now)
{
	CLEANUP_FREE char *text = NULL;

	return file_read_at(s->notes, hex, sizeof now->text, &text, NULL) == 0 &&
	       str_eq(text, now->text);
}

static int store_blob_work(void *arg, void *answer)
{
	return store_blob_digest(*(int *)arg, answer);
}

/* A supervisor lives long and checks once: libcrypto is 400 KiB that it never has. */
static int store_blob_digest_apart(int fd, char ret[static STORE_DIGEST_MAX + 1])
{
	return spawn_apart(store_blob_work, &fd, ret, STORE_DIGEST_MAX + 1);
}

/* 0: sound; -EBADMSG: not. What changes while it is hashed is not noted. */
static int store_blob_check(struct store *s, int fd, const char *digest)
{
	struct store_blob_note before, after;
	char found[STORE_DIGEST_MAX + 1];
	int r;

	r = store_blob_describe(fd, &before);
	if (r < 0 || store_blob_is_noted(s, digest + 7, &before))
		return r;
	r = store_blob_digest_apart(fd, found);
	if (r < 0)
		return r;
	if (!str_eq(found, digest))
		return -EBADMSG;
	if (store_blob_describe(fd, &after) == 0 && str_eq(before.text, after.text))
		(void)file_write_at(s->notes, digest + 7, after.text, strlen(after.text), 0600);
	return 0;
}

static int store_blob_open(struct store *s, const char *digest)
{
	int fd = openat(s->blobs, digest + 7, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

static char *store_blob_problem(const char *digest, int error)
{
	switch (error) {
	case -ENOENT:
		return str_printf("blob %s of the store is missing: remove what uses it and build "
				  "or add it again",
			digest);
	case -ELOOP:
	case -EBADMSG:
		return str_printf("blob %s of the store is damaged (its SHA-256 is not its name "
				  "any more): remove what uses it and build or add it again",
			digest);
	case -ECHILD:
		return str_printf(
			"blob %s of the store cannot be checked: the process that read it "
			"was killed",
			digest);
	case -ENOPKG:
		return str_printf(
			"blob %s of the store cannot be checked: there is no libcrypto", digest);
	default:
		return str_printf(
			"blob %s of the store cannot be checked: %s", digest, strerror(-error));
	}
}

int store_open_blob(struct store *s, const char *digest, char **ret_reason)
{
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	if (!oci_digest_is_valid(digest)) {
		*ret_reason = str_printf("\"%.80s\" is no digest: the manifest is damaged", digest);
		return -EBADMSG;
	}
	fd = store_blob_open(s, digest);
	r = fd < 0 ? fd : store_blob_check(s, fd, digest);
	if (r == 0)
		return TAKE_FD(fd);
	*ret_reason = store_blob_problem(digest, r);
	return r == -ENOENT || r == -ELOOP ? -EBADMSG : r;
}

/* Under a name of its own first, then renamed: in place of a damaged blob. */
static int store_blob_replace(struct store *s, const char *from, const char *hex)
{
	char temporary[32];
	unsigned long tag;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		return -errno;
	snprintf(temporary, sizeof temporary, ".tmp-%lx", tag);
	if (linkat(AT_FDCWD, from, s->blobs, temporary, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	if (renameat(s->blobs, temporary, s->blobs, hex) < 0) {
		int r = -errno;

		unlinkat(s->blobs, temporary, 0);
		return r;
	}
	return 1;
}

static void store_blob_note(struct store *s, int fd, const char *digest)
{
	struct store_blob_note now;

	if (store_blob_describe(fd, &now) == 0)
		(void)file_write_at(s->notes, digest + 7, now.text, strlen(now.text), 0600);
}

int store_blob_link(struct store *s, int fd, const char *digest)
{
	CLEANUP_CLOSE int old = -EBADF;
	char from[FD_PATH_MAX];
	int r;

	assert(oci_digest_is_valid(digest));
	if (fchmod(fd, 0444) < 0 || fsync(fd) < 0)
		return -errno;
	fd_path(fd, from);
	if (linkat(AT_FDCWD, from, s->blobs, digest + 7, AT_SYMLINK_FOLLOW) < 0) {
		if (errno != EEXIST)
			return -errno;
		old = store_blob_open(s, digest);
		if (old >= 0 && store_blob_check(s, old, digest) == 0)
			return 0;
		r = store_blob_replace(s, from, digest + 7);
		if (r < 0)
			return r;
	}
	store_blob_note(s, fd, digest);
	return 1;
}

static bool store_blob_is_good(struct store *s, int fd, const char *digest)
{
	struct store_blob_note now;

	return store_blob_describe(fd, &now) == 0 && store_blob_is_noted(s, digest + 7, &now);
}

/* A name more changes the time that was noted; it is noted again, and need not be hashed for that. */
int store_lend_blob(struct store *s, const char *digest, int fd, int dir)
{
	bool good = store_blob_is_good(s, fd, digest);
	char from[FD_PATH_MAX];

	assert(oci_digest_is_valid(digest));
	/* of an earlier life that was killed */
	(void)unlinkat(dir, digest + 7, 0);
	if (linkat(AT_FDCWD, fd_path(fd, from), dir, digest + 7, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	if (good)
		store_blob_note(s, fd, digest);
	return 0;
}

void store_unlend_blob(struct store *s, const char *digest, int dir)
{
	CLEANUP_CLOSE int fd =
		openat(dir, digest + 7, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	bool good = fd >= 0 && store_blob_is_good(s, fd, digest);

	if (unlinkat(dir, digest + 7, 0) == 0 && good)
		store_blob_note(s, fd, digest);
}

void store_blob_unlink(struct store *s, const char *digest)
{
	unlinkat(s->blobs, digest + 7, 0);
	unlinkat(s->notes, digest + 7, 0);
}

int store_blob_json(
	struct store *s, const char *digest, struct json_object **ret, char **ret_reason)
{
	CLEANUP_CLOSE int fd = store_open_blob(s, digest, ret_reason);
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	if (fd < 0)
		return fd;
	r = file_read_fd(fd, STORE_BLOB_JSON_MAX, &text, &len);
	if (r == 0)
		r = json_codec_parse(text, len, ret);
	if (r == -EBADMSG || r == -EFBIG) {
		*ret_reason =
			str_printf("blob %s of the store is not the JSON it should be", digest);
		return -EBADMSG;
	}
	return r;
}
