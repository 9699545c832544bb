#include "image-build.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "image-debian.h"
#include "json-codec.h"
#include "layer.h"
#include "oci.h"
#include "str.h"
#include "tool.h"

struct json_object *image_build_configuration(const char *diff_id)
{
	struct json_object *c = json_object_new_object(), *rootfs = json_object_new_object(),
			   *ids = json_object_new_array(), *config = json_object_new_object();

	json_object_object_add(c, "created", json_object_new_string("1970-01-01T00:00:00Z"));
	json_object_object_add(c, "architecture", json_object_new_string("amd64"));
	json_object_object_add(c, "os", json_object_new_string("linux"));
	json_object_object_add(c, "config", config);
	json_object_array_add(ids, json_object_new_string(diff_id));
	json_object_object_add(rootfs, "type", json_object_new_string("layers"));
	json_object_object_add(rootfs, "diff_ids", ids);
	json_object_object_add(c, "rootfs", rootfs);
	return c;
}

static void image_label_debian(const struct image_build *b, struct json_object *config)
{
	struct json_object *labels;

	if (!b->from_debian)
		return;
	labels = json_object_new_object();
	json_object_object_add(labels, "io.uvms.image.source", json_object_new_string("debian"));
	json_object_object_add(
		labels, "io.uvms.image.suite", json_object_new_string(b->from_debian));
	json_object_object_add(oci_object(config, "config"), "Labels", labels);
}

static int image_add_layer(struct store *s, const struct image_build *b,
	const struct layer_source *source, struct image_built *ret, char **ret_reason)
{
	CLEANUP(store_temp_finish) struct store_temp temp = STORE_TEMP_IDLE;
	CLEANUP(json_codec_putp) struct json_object *config = NULL;
	struct store_edit_blob layer;
	int r;

	if (b->say)
		b->say("packing the tree into an EROFS layer");
	r = layer_build(s, source, &temp, &layer, ret_reason);
	if (r < 0)
		return r;
	config = image_build_configuration(layer.digest);
	image_label_debian(b, config);
	struct store_edit e = { .kind = STORE_INDEX_IMAGE,
		.name = b->name,
		.config = config,
		.blobs = &layer,
		.n_blobs = 1 };
	r = store_edit_add(s, &e, ret->digest, ret_reason);
	ret->size_bytes = layer.size_bytes;
	return r;
}

static int image_from_dir(
	struct store *s, const struct image_build *b, struct image_built *ret, char **ret_reason)
{
	CLEANUP_CLOSE int dir = open(b->from_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct layer_source source = { .dir = dir, .tree = "." };

	if (dir < 0) {
		int r = -errno;

		*ret_reason = str_printf("%s: %s", b->from_dir, strerror(-r));
		return r;
	}
	return image_add_layer(s, b, &source, ret, ret_reason);
}

static int image_from_debian(
	struct store *s, const struct image_build *b, struct image_built *ret, char **ret_reason)
{
	CLEANUP(store_temp_finish) struct store_temp work = STORE_TEMP_IDLE;
	struct layer_source source = { .tree = "tree", .mapped = geteuid() != 0 };
	struct image_debian d = { .suite = b->from_debian,
		.include = b->include,
		.script = b->script,
		.mapped = source.mapped,
		.say = b->say };
	int r;

	r = store_temp_dir(s, &work);
	if (r < 0)
		return r;
	source.dir = work.fd;
	r = image_debian_tree(&d, work.fd, source.tree, &source.epoch, ret_reason);
	if (r < 0)
		return r;
	return image_add_layer(s, b, &source, ret, ret_reason);
}

static int image_require(const struct image_build *b, char **ret_reason)
{
	static const char *const for_dir[] = { "mkfs.erofs", NULL };

	return b->from_debian ? image_debian_require(geteuid() != 0, ret_reason)
			      : tool_require(for_dir, ret_reason);
}

int image_build(
	struct store *s, const struct image_build *b, struct image_built *ret, char **ret_reason)
{
	struct image_built built;
	sigset_t before;
	int r;

	r = image_require(b, ret_reason);
	if (r < 0)
		return r;
	tool_signals_hold(&before);
	r = b->from_debian ? image_from_debian(s, b, &built, ret_reason)
			   : image_from_dir(s, b, &built, ret_reason);
	tool_signals_release(&before);
	if (r < 0)
		return r;
	*ret = built;
	return 0;
}
