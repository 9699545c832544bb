#include "store-edit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "cleanup.h"
#include "fd.h"
#include "json-codec.h"
#include "oci.h"
#include "store-blob.h"
#include "store-impl.h"
#include "store-temp.h"
#include "str.h"

int store_edit_seal(struct store_edit_blob *b)
{
	struct stat st;

	if (fstat(b->fd, &st) < 0)
		return -errno;
	b->size_bytes = (uint64_t)st.st_size;
	return store_blob_digest(b->fd, b->digest);
}

/* One blob made of JSON. */
struct store_edit_text {
	struct store_temp temp;
	struct store_edit_blob blob;
};

static void store_edit_text_finish(struct store_edit_text *t)
{
	store_temp_finish(&t->temp);
}

static int store_edit_text(
	struct store *s, struct json_object *obj, const char *media_type, struct store_edit_text *t)
{
	const char *text = json_object_to_json_string_ext(
		obj, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	int r;

	if (!text)
		return -ENOMEM;
	r = store_temp_file(s, &t->temp);
	if (r >= 0)
		r = fd_write_all(t->temp.fd, text, strlen(text));
	t->blob = (struct store_edit_blob){ .media_type = media_type, .fd = t->temp.fd };
	return r < 0 ? r : store_edit_seal(&t->blob);
}

static struct json_object *store_edit_descriptor(const struct store_edit_blob *b)
{
	return oci_descriptor(b->media_type, b->digest, b->size_bytes);
}

static struct json_object *store_edit_manifest(
	const struct store_edit *e, const struct store_edit_blob *config)
{
	struct json_object *m = json_object_new_object(), *layers = json_object_new_array();

	json_object_object_add(m, "schemaVersion", json_object_new_int(2));
	json_object_object_add(m, "mediaType", json_object_new_string(OCI_MANIFEST));
	if (e->kind == STORE_INDEX_KERNEL)
		json_object_object_add(m, "artifactType", json_object_new_string(OCI_KERNEL));
	json_object_object_add(m, "config", store_edit_descriptor(config));
	for (size_t i = 0; i < e->n_blobs; i++)
		json_object_array_add(layers, store_edit_descriptor(&e->blobs[i]));
	json_object_object_add(m, "layers", layers);
	if (e->release)
		oci_annotate(m, OCI_RELEASE, e->release);
	return m;
}

static struct json_object *store_edit_entry(
	const struct store_edit *e, const struct store_edit_blob *manifest)
{
	struct json_object *d = store_edit_descriptor(manifest);
	time_t now = time(NULL);
	char created[32];
	struct tm tm;

	strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	if (e->kind == STORE_INDEX_KERNEL)
		json_object_object_add(d, "artifactType", json_object_new_string(OCI_KERNEL));
	oci_annotate(d, OCI_NAME, e->name);
	oci_annotate(d, OCI_CREATED, created);
	return d;
}

struct store_edit_links {
	const struct store_edit_blob *blob;
	bool is_new;
};

static int store_edit_link(struct store *s, struct store_edit_links *links, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		int r = store_blob_link(s, links[i].blob->fd, links[i].blob->digest);

		if (r < 0)
			return r;
		links[i].is_new = r > 0;
	}
	return fsync(s->blobs) < 0 ? -errno : 0;
}

static int store_edit_name(struct store *s, const struct store_edit *e,
	const struct store_edit_blob *manifest, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL;
	int r;

	r = store_index_read(s, &index, ret_reason);
	if (r >= 0)
		r = store_index_put(index, e->kind, store_edit_entry(e, manifest));
	return r < 0 ? r : store_index_write(s, index);
}

/* All blobs have their bytes and digests: under the lock they get their names, or none does. */
static int store_edit_commit(struct store *s, const struct store_edit *e,
	const struct store_edit_blob *config, const struct store_edit_blob *manifest,
	char **ret_reason)
{
	CLEANUP_FREE struct store_edit_links *links = calloc(e->n_blobs + 2, sizeof *links);
	CLEANUP_CLOSE int lock = store_index_lock(s);
	size_t n = e->n_blobs;
	int r;

	if (!links || lock < 0)
		return links ? lock : -ENOMEM;
	for (size_t i = 0; i < n; i++)
		links[i].blob = &e->blobs[i];
	links[n++].blob = config;
	links[n++].blob = manifest;
	r = store_edit_link(s, links, n);
	if (r >= 0)
		r = store_edit_name(s, e, manifest, ret_reason);
	for (size_t i = 0; r < 0 && i < n; i++) {
		if (links[i].is_new)
			store_blob_unlink(s, links[i].blob->digest);
	}
	return r;
}

int store_edit_add(struct store *s, const struct store_edit *e,
	char ret_digest[static STORE_DIGEST_MAX + 1], char **ret_reason)
{
	CLEANUP(store_edit_text_finish) struct store_edit_text config = { STORE_TEMP_IDLE };
	CLEANUP(store_edit_text_finish) struct store_edit_text manifest = { STORE_TEMP_IDLE };
	CLEANUP(json_codec_putp) struct json_object *empty = json_object_new_object(), *m = NULL;
	int r;

	r = store_edit_text(
		s, e->config ? e->config : empty, e->config ? OCI_CONFIG : OCI_EMPTY, &config);
	if (r < 0)
		return r;
	m = store_edit_manifest(e, &config.blob);
	r = store_edit_text(s, m, OCI_MANIFEST, &manifest);
	if (r < 0)
		return r;
	r = store_edit_commit(s, e, &config.blob, &manifest.blob, ret_reason);
	if (r < 0)
		return r;
	memcpy(ret_digest, manifest.blob.digest, sizeof manifest.blob.digest);
	return 0;
}

/* Marks DIGEST and whatever its manifest refers to. */
static int store_edit_mark(struct store *s, const char *digest, struct json_object *used)
{
	CLEANUP(json_codec_putp) struct json_object *m = NULL;
	CLEANUP_FREE char *reason = NULL;
	struct json_object *layers;
	const char *config;
	int r;

	json_object_object_add(used, digest + 7, NULL);
	r = store_blob_json(s, digest, &m, &reason);
	if (r < 0)
		return r;
	config = oci_str(oci_object(m, "config"), "digest");
	if (oci_digest_is_valid(config))
		json_object_object_add(used, config + 7, NULL);
	layers = oci_array(m, "layers");
	for (size_t i = 0; layers && i < json_object_array_length(layers); i++) {
		const char *d = oci_str(json_object_array_get_idx(layers, i), "digest");

		if (oci_digest_is_valid(d))
			json_object_object_add(used, d + 7, NULL);
	}
	return 0;
}

/* A manifest that cannot be read might refer to anything: then nothing is swept. */
static int store_edit_mark_all(struct store *s, struct json_object *index, struct json_object *used)
{
	struct json_object *all = oci_array(index, "manifests");

	for (size_t i = 0; i < json_object_array_length(all); i++) {
		const char *digest = oci_str(json_object_array_get_idx(all, i), "digest");
		int r = oci_digest_is_valid(digest) ? store_edit_mark(s, digest, used) : -EBADMSG;

		if (r < 0)
			return r;
	}
	return 0;
}

static uint64_t store_edit_bytes(struct store *s, const char *name)
{
	struct stat st;

	return fstatat(s->blobs, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? 0
								     : (uint64_t)st.st_blocks * 512;
}

static int store_edit_sweep(
	struct store *s, struct json_object *index, bool dry_run, uint64_t *bytes)
{
	CLEANUP(json_codec_putp) struct json_object *used = json_object_new_object();
	int r, copy;
	DIR *d;

	r = store_edit_mark_all(s, index, used);
	if (r < 0)
		return r;
	copy = openat(s->blobs, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	d = copy < 0 ? NULL : fdopendir(copy);
	if (!d) {
		fd_close(copy);
		return -errno;
	}
	for (struct dirent *e; (e = readdir(d));) {
		char digest[STORE_DIGEST_MAX + 1];

		snprintf(digest, sizeof digest, "sha256:%.64s", e->d_name);
		if (strlen(e->d_name) != 64 || !oci_digest_is_valid(digest) ||
			json_object_object_get_ex(used, e->d_name, NULL))
			continue;
		*bytes += store_edit_bytes(s, e->d_name);
		if (!dry_run)
			store_blob_unlink(s, digest);
	}
	closedir(d);
	return 0;
}

int store_edit_remove(
	struct store *s, enum store_index_kind kind, const char *ref, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL;
	CLEANUP_CLOSE int lock = store_index_lock(s);
	struct json_object *d;
	uint64_t bytes = 0;
	int r;

	if (lock < 0)
		return lock;
	r = store_index_read(s, &index, ret_reason);
	if (r >= 0)
		r = store_index_find(index, kind, ref, &d);
	if (r == -ENOTUNIQ) {
		*ret_reason = str_printf("%s is the beginning of several digests", ref);
		return -EBADMSG;
	}
	if (r < 0)
		return r;
	store_index_drop(index, d);
	r = store_index_write(s, index);
	return r < 0 ? r : store_edit_sweep(s, index, false, &bytes);
}

int store_edit_prune(struct store *s, bool dry_run, uint64_t *ret_bytes)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL;
	CLEANUP_CLOSE int lock = store_index_lock(s);
	CLEANUP_FREE char *reason = NULL;
	uint64_t bytes = 0;
	int r;

	if (lock < 0)
		return lock;
	r = store_index_read(s, &index, &reason);
	if (r == 0)
		r = store_edit_sweep(s, index, dry_run, &bytes);
	if (r < 0)
		return r;
	if (!dry_run)
		store_temp_sweep(s);
	*ret_bytes = bytes;
	return 0;
}

int store_edit_list(struct store *s, enum store_index_kind kind, char ***ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL;
	CLEANUP(strv_freep) char **refs = NULL;
	struct json_object *d;
	int r;

	r = store_index_read(s, &index, ret_reason);
	for (size_t i = 0; r >= 0 && (d = store_index_nth(index, kind, i)); i++)
		r = strv_push(&refs, str_or(oci_annotation(d, OCI_NAME), oci_str(d, "digest")));
	if (r < 0)
		return r;
	*ret = TAKE_PTR(refs);
	return 0;
}
