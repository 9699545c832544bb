#include "store-index.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "file.h"
#include "json-codec.h"
#include "lock.h"
#include "oci.h"
#include "store-impl.h"
#include "str.h"

#define STORE_INDEX_MAX        (4 << 20) /* bytes */
#define STORE_INDEX_PREFIX_MIN 4

int store_index_lock(struct store *s)
{
	CLEANUP_CLOSE int fd =
		openat(s->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = lock_wait(fd);
	return r < 0 ? r : TAKE_FD(fd);
}

int store_index_read(struct store *s, struct json_object **ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	r = file_read_at(s->dir, "index.json", STORE_INDEX_MAX, &text, &len);
	if (r == 0)
		r = json_codec_parse(text, len, &index);
	if (r == 0 && !oci_array(index, "manifests"))
		r = -EBADMSG;
	if (r == -EBADMSG || r == -ENOENT || r == -EFBIG) {
		*ret_reason = str_printf("the store's index.json is %s: restore it from a backup, "
					 "or move the store away and build the images again",
			r == -ENOENT ? "missing" : "damaged");
		return -EBADMSG;
	}
	if (r < 0)
		return r;
	*ret = TAKE_PTR(index);
	return 0;
}

int store_index_write(struct store *s, struct json_object *index)
{
	const char *text = json_object_to_json_string_ext(
		index, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

	if (!text)
		return -ENOMEM;
	return file_write_at(s->dir, "index.json", text, strlen(text), 0644);
}

static enum store_index_kind store_index_kind(struct json_object *d)
{
	return str_eq(oci_str(d, "artifactType"), OCI_KERNEL) ? STORE_INDEX_KERNEL
							      : STORE_INDEX_IMAGE;
}

struct json_object *store_index_nth(struct json_object *index, enum store_index_kind kind, size_t n)
{
	struct json_object *all = oci_array(index, "manifests");

	for (size_t i = 0; i < json_object_array_length(all); i++) {
		struct json_object *d = json_object_array_get_idx(all, i);

		if (oci_digest_is_valid(oci_str(d, "digest")) && store_index_kind(d) == kind &&
			n-- == 0)
			return d;
	}
	return NULL;
}

static int store_index_find_exactly(struct json_object *index, enum store_index_kind kind,
	const char *ref, struct json_object **ret)
{
	const char *hex = str_has_prefix(ref, "sha256:") ? ref + 7 : ref;
	struct json_object *d, *found = NULL;

	for (size_t i = 0; (d = store_index_nth(index, kind, i)); i++) {
		if (str_eq(oci_annotation(d, OCI_NAME), ref)) {
			*ret = d;
			return 0;
		}
	}
	if (strlen(hex) < STORE_INDEX_PREFIX_MIN)
		return -ENOENT;
	for (size_t i = 0; (d = store_index_nth(index, kind, i)); i++) {
		if (!str_has_prefix(oci_str(d, "digest") + 7, hex))
			continue;
		if (found && !str_eq(oci_str(found, "digest"), oci_str(d, "digest")))
			return -ENOTUNIQ;
		found = d;
	}
	*ret = found;
	return found ? 0 : -ENOENT;
}

int store_index_find(struct json_object *index, enum store_index_kind kind, const char *ref,
	struct json_object **ret)
{
	CLEANUP_FREE char *familiar = NULL;
	int r = store_index_find_exactly(index, kind, ref, ret);

	if (r != -ENOENT || kind != STORE_INDEX_IMAGE)
		return r;
	familiar = oci_name_familiar(ref);
	return familiar ? store_index_find_exactly(index, kind, familiar, ret) : -ENOMEM;
}

int store_index_put(
	struct json_object *index, enum store_index_kind kind, struct json_object *descriptor)
{
	struct json_object *old;

	if (store_index_find(index, kind, oci_annotation(descriptor, OCI_NAME), &old) == 0 &&
		str_eq(oci_annotation(old, OCI_NAME), oci_annotation(descriptor, OCI_NAME)))
		store_index_drop(index, old);
	return json_object_array_add(oci_array(index, "manifests"), descriptor) < 0 ? -ENOMEM : 0;
}

void store_index_drop(struct json_object *index, struct json_object *descriptor)
{
	struct json_object *all = oci_array(index, "manifests");

	for (size_t i = 0; i < json_object_array_length(all); i++) {
		if (json_object_array_get_idx(all, i) == descriptor) {
			json_object_array_del_idx(all, i, 1);
			return;
		}
	}
}
