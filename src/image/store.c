#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "oci.h"
#include "store-blob.h"
#include "store-impl.h"
#include "store-index.h"
#include "str.h"

#define STORE_LAYERS_MAX 128

static const char oci_layout[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
static const char empty_index[] =
	"{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\","
	"\"manifests\":[]}";

static int store_write_once(struct store *s, const char *name, const char *text)
{
	if (faccessat(s->dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	return file_write_at(s->dir, name, text, strlen(text), 0644);
}

/* oci-layout comes last: a store that has it had an index once, and misses it now. */
static int store_make_layout(struct store *s)
{
	CLEANUP_CLOSE int lock = -EBADF;
	int r;

	if (faccessat(s->dir, "oci-layout", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return 0;
	lock = store_index_lock(s);
	if (lock < 0)
		return lock;
	r = store_write_once(s, "index.json", empty_index);
	if (r < 0)
		return r;
	return store_write_once(s, "oci-layout", oci_layout);
}

int store_open(int state_fd, struct store **ret)
{
	CLEANUP_CLOSE int blobs = -EBADF;
	struct store *s = malloc(sizeof *s);
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct store){ -EBADF, -EBADF, -EBADF };
	r = s->dir = file_mkdir_at(state_fd, "store", 0700);
	if (r >= 0)
		r = blobs = file_mkdir_at(s->dir, "blobs", 0755);
	if (r >= 0)
		r = s->blobs = file_mkdir_at(blobs, "sha256", 0755);
	if (r >= 0)
		r = s->notes = file_mkdir_at(s->dir, "verified", 0700);
	if (r >= 0)
		r = store_make_layout(s);
	if (r < 0) {
		store_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	fd_close(s->dir);
	fd_close(s->blobs);
	fd_close(s->notes);
	free(s);
}

static int store_broken(const char *digest, const char *what, char **ret_reason)
{
	*ret_reason = str_printf("manifest %s is damaged: %s", digest, what);
	return -EBADMSG;
}

static int store_image_fill(struct json_object *d, struct json_object *manifest,
	struct store_image *i, char **ret_reason)
{
	struct json_object *layers = oci_array(manifest, "layers");
	const char *digest = oci_str(d, "digest");
	int r;

	if (!layers || json_object_array_length(layers) > STORE_LAYERS_MAX)
		return store_broken(digest, "it has no list of layers", ret_reason);
	for (size_t n = 0; n < json_object_array_length(layers); n++) {
		struct json_object *layer = json_object_array_get_idx(layers, n);

		if (!oci_digest_is_valid(oci_str(layer, "digest")))
			return store_broken(digest, "a layer has no digest", ret_reason);
		if (!str_eq(oci_str(layer, "mediaType"), OCI_LAYER)) {
			*ret_reason = str_printf("layer %zu of manifest %s is no EROFS layer of "
						 "uvms: build the image with uvms image build",
				n, digest);
			return -EBADMSG;
		}
		r = strv_push(&i->layers, oci_str(layer, "digest"));
		if (r < 0)
			return r;
		i->size_bytes += oci_size(layer);
	}
	r = str_set(&i->name, oci_annotation(d, OCI_NAME));
	if (r >= 0)
		r = str_set(&i->digest, digest);
	if (r >= 0)
		r = str_set(&i->created, oci_annotation(d, OCI_CREATED));
	return r;
}

static int store_kernel_blob(struct json_object *layers, size_t n, const char *type, char **ret)
{
	struct json_object *layer = json_object_array_get_idx(layers, n);

	if (!str_eq(oci_str(layer, "mediaType"), type) ||
		!oci_digest_is_valid(oci_str(layer, "digest")))
		return -EBADMSG;
	return str_set(ret, oci_str(layer, "digest"));
}

static int store_kernel_fill(struct json_object *d, struct json_object *manifest,
	struct store_kernel *k, char **ret_reason)
{
	struct json_object *layers = oci_array(manifest, "layers");
	const char *digest = oci_str(d, "digest");
	int r;

	if (!layers || json_object_array_length(layers) != 2)
		return store_broken(digest, "a kernel has two blobs", ret_reason);
	r = store_kernel_blob(layers, 0, OCI_VMLINUX, &k->kernel);
	if (r >= 0)
		r = store_kernel_blob(layers, 1, OCI_MODULES, &k->modules);
	if (r == -EBADMSG)
		return store_broken(digest, "a kernel has two blobs", ret_reason);
	for (size_t n = 0; n < 2; n++)
		k->size_bytes += oci_size(json_object_array_get_idx(layers, n));
	if (r >= 0)
		r = str_set(&k->name, oci_annotation(d, OCI_NAME));
	if (r >= 0)
		r = str_set(&k->digest, digest);
	if (r >= 0)
		r = str_set(&k->release, oci_annotation(manifest, OCI_RELEASE));
	if (r >= 0)
		r = str_set(&k->created, oci_annotation(d, OCI_CREATED));
	return r;
}

static int store_find_failed(int r, const char *ref, char **ret_reason)
{
	if (r == -ENOTUNIQ) {
		*ret_reason =
			str_printf("%s is the beginning of several digests: give more of it", ref);
		return -EBADMSG;
	}
	return r;
}

static struct json_object *store_default_kernel(struct json_object *index)
{
	struct json_object *d, *newest = NULL;

	for (size_t i = 0; (d = store_index_nth(index, STORE_INDEX_KERNEL, i)); i++) {
		if (str_eq(oci_annotation(d, OCI_DEFAULT), "true"))
			return d;
		newest = d;
	}
	return newest;
}

static int store_image_config(
	struct store *s, struct json_object *manifest, struct store_image *i, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *configuration = NULL;
	struct json_object *d = oci_object(manifest, "config");
	const char *bad = "";
	int r;

	if (!str_eq(oci_str(d, "mediaType"), OCI_CONFIG) ||
		!oci_digest_is_valid(oci_str(d, "digest")))
		return 0;
	r = store_blob_json(s, oci_str(d, "digest"), &configuration, ret_reason);
	if (r == 0)
		r = image_config_read(configuration, &i->config, &bad);
	if (r == -EBADMSG && !*ret_reason)
		*ret_reason = str_printf("%s in its configuration cannot be understood", bad);
	return r;
}

int store_find_image(struct store *s, const char *ref, struct store_image *ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL, *manifest = NULL;
	CLEANUP(store_image_finish) struct store_image i = { 0 };
	struct json_object *d;
	int r;

	r = store_index_read(s, &index, ret_reason);
	if (r < 0)
		return r;
	r = store_index_find(index, STORE_INDEX_IMAGE, ref, &d);
	if (r < 0)
		return store_find_failed(r, ref, ret_reason);
	r = store_blob_json(s, oci_str(d, "digest"), &manifest, ret_reason);
	if (r >= 0)
		r = store_image_fill(d, manifest, &i, ret_reason);
	if (r >= 0)
		r = store_image_config(s, manifest, &i, ret_reason);
	if (r < 0)
		return r;
	*ret = i;
	i = (struct store_image){ 0 };
	return 0;
}

int store_find_kernel(struct store *s, const char *ref, struct store_kernel *ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL, *manifest = NULL;
	CLEANUP(store_kernel_finish) struct store_kernel k = { 0 };
	struct json_object *d = NULL;
	int r;

	r = store_index_read(s, &index, ret_reason);
	if (r < 0)
		return r;
	if (ref)
		r = store_index_find(index, STORE_INDEX_KERNEL, ref, &d);
	else
		d = store_default_kernel(index);
	if (r < 0 || !d)
		return store_find_failed(r < 0 ? r : -ENOENT, ref, ret_reason);
	r = store_blob_json(s, oci_str(d, "digest"), &manifest, ret_reason);
	if (r >= 0)
		r = store_kernel_fill(d, manifest, &k, ret_reason);
	if (r < 0)
		return r;
	*ret = k;
	k = (struct store_kernel){ 0 };
	return 0;
}

void store_image_finish(struct store_image *i)
{
	free(i->name);
	free(i->digest);
	strv_free(i->layers);
	free(i->created);
	image_config_finish(&i->config);
	*i = (struct store_image){ 0 };
}

void store_kernel_finish(struct store_kernel *k)
{
	free(k->name);
	free(k->digest);
	free(k->release);
	free(k->kernel);
	free(k->modules);
	free(k->created);
	*k = (struct store_kernel){ 0 };
}
