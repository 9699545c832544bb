#include "sv-source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "store.h"
#include "str.h"
#include "sv-lend.h"
#include "sv.h"

#define SOURCE_PATH_MAX 255 /* bytes */

/* Absolute, with no component that is empty, "." or "..": each place has one spelling. */
static bool is_plain(const char *path)
{
	size_t n = 0;

	while (*path == '/') {
		n = strcspn(++path, "/");
		if (n == 0 || (n <= 2 && strspn(path, ".") == n))
			return false;
		path += n;
	}
	return n > 0;
}

int sv_source_check_path(const char *path, char **ret_reason)
{
	if (is_plain(path) && strlen(path) <= SOURCE_PATH_MAX)
		return 0;
	*ret_reason = str_printf("%s: a path in the guest is needed, absolute, of at most %d "
				 "bytes, without . and ..",
		path, SOURCE_PATH_MAX);
	return -EINVAL;
}

bool sv_source_is_volume(const struct sv *sv, const char *path)
{
	struct vm_volume v;
	const char *reason;

	for (char **p = sv->spec.volumes; p && *p; p++) {
		if (vm_volume_parse(*p, &v, &reason) == 0 && str_eq(v.path, path))
			return true;
	}
	return false;
}

int sv_source_directory(struct sv_share *s, const char *directory, char **ret_reason)
{
	char link[FD_PATH_MAX], found[4096];
	ssize_t n;

	int r;

	if (*directory != '/') {
		*ret_reason = str_printf("%s: an absolute path of the host is needed", directory);
		return -EINVAL;
	}
	r = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (r < 0) {
		r = -errno;
		*ret_reason = str_printf("%s: %s", directory, strerror(-r));
		return r;
	}
	s->fd = r;
	n = readlink(fd_path(s->fd, link), found, sizeof found - 1);
	if (n < 0)
		return -errno;
	found[n] = 0;
	return str_set(&s->source, found);
}

/* In the guest it is found by its size. */
static bool has_same_size(const struct sv *sv, const struct sv_share *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (sv->shares[i].kind == SV_SHARE_IMAGE && &sv->shares[i] != s &&
			sv->shares[i].bytes == s->bytes)
			return true;
	}
	return false;
}

static int check_size(const struct sv *sv, struct sv_share *s, char **ret_reason)
{
	struct stat st;

	if (fstat(s->fd, &st) < 0)
		return -errno;
	s->bytes = (uint64_t)st.st_size;
	if (s->bytes == 0 || s->bytes % VMM_PMEM_ALIGN) {
		*ret_reason = str_printf(
			"image %s: its layer is of an older uvms, not a multiple of %d MiB: build "
			"it again",
			s->source, VMM_PMEM_ALIGN >> 20);
		return -EOPNOTSUPP;
	}
	if (has_same_size(sv, s)) {
		*ret_reason = str_printf("image %s: another one of %llu MiB is attached, from "
					 "which the guest could not tell it: not supported yet",
			s->source, (unsigned long long)(s->bytes >> 20));
		return -EOPNOTSUPP;
	}
	return 0;
}

static int find_layer(struct store *store, struct sv_share *s, char **ret_reason)
{
	struct store_image image = { 0 };
	int r = store_find_image(store, s->source, &image, ret_reason);
	size_t n = r < 0 ? 0 : strv_length(image.layers);

	if (r == -ENOENT && !*ret_reason)
		*ret_reason = str_printf("there is no image \"%s\"", s->source);
	if (r >= 0 && n != 1) {
		*ret_reason = str_printf("image %s has %zu layers: only one with a single layer "
					 "can be attached yet",
			s->source, n);
		r = -EOPNOTSUPP;
	}
	if (r >= 0)
		r = s->fd = store_open_blob(store, image.layers[0], ret_reason);
	if (r >= 0)
		r = check_size(s->child.sv, s, ret_reason);
	if (r >= 0)
		r = str_set(&s->digest, image.layers[0]);
	store_image_finish(&image);
	return r;
}

int sv_source_image(struct sv *sv, struct sv_share *s, char **ret_path, char **ret_reason)
{
	CLEANUP(store_closep) struct store *store = NULL;
	int r = sv_lend_store(sv, &store);

	if (r == 0)
		r = find_layer(store, s, ret_reason);
	if (r >= 0 && (vmm_backend_caps(sv->backend) & VMM_CAP_API))
		r = sv_lend(sv, store, s->digest, s->fd, ret_path, ret_reason);
	return r < 0 ? r : 0;
}
