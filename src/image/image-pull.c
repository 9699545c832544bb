#include "image-pull.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "image-config.h"
#include "json-codec.h"
#include "layer.h"
#include "oci.h"
#include "store-temp.h"
#include "str.h"
#include "tool.h"

#define PULL_JSON_MAX (4 << 20) /* bytes of index, manifest or configuration */

static const char *const transports[] = { "docker://",
	"oci:", "oci-archive:", "docker-archive:", "dir:", NULL };

static const char *pull_transport(const char *ref)
{
	for (const char *const *t = transports; *t; t++) {
		if (str_has_prefix(ref, *t))
			return *t;
	}
	return NULL;
}

int image_pull_check(const char *ref, char **ret_name, const char **ret_reason)
{
	const char *transport = pull_transport(ref);
	CLEANUP_FREE char *name = NULL;

	*ret_reason = "no reference begins with '-', and none is empty";
	if (*ref == '-' || !*ref)
		return -EINVAL;
	if (transport && !str_eq(transport, "docker://")) {
		*ret_name = NULL;
		return 0;
	}
	name = oci_name_familiar(transport ? ref + strlen(transport) : ref);
	if (!name)
		return -ENOMEM;
	*ret_reason = oci_name_problem(name);
	if (*ret_reason)
		return -EINVAL;
	*ret_name = TAKE_PTR(name);
	return 0;
}

/* Whether the registry named by REF is this machine itself, which speaks plain HTTP as a rule. */
static bool pull_is_local(const char *ref)
{
	return str_has_prefix(ref, "127.") || str_has_prefix(ref, "localhost:") ||
	       str_has_prefix(ref, "localhost/") || str_has_prefix(ref, "[::1]");
}

static bool pull_has_policy(void)
{
	const char *home = getenv("HOME");
	CLEANUP_FREE char *own =
		str_printf("%s/.config/containers/policy.json", str_or(home, "/nonexistent"));

	return access("/etc/containers/policy.json", R_OK) == 0 || (own && access(own, R_OK) == 0);
}

static int pull_fetch(const struct image_pull *p, int work, char **ret_reason)
{
	CLEANUP_FREE char *source =
		pull_transport(p->ref) ? strdup(p->ref) : str_printf("docker://%s", p->ref);
	const char *bare = source && str_has_prefix(source, "docker://") ? source + 9 : "";
	bool insecure = p->insecure || pull_is_local(bare);
	CLEANUP(strv_freep) char **argv = NULL;
	int r = 0;

	if (!source)
		return -ENOMEM;
	r = r ? r : strv_push(&argv, "skopeo");
	/* without a policy of the host's there is nothing to hold images against */
	if (!pull_has_policy())
		r = r ? r : strv_push(&argv, "--insecure-policy");
	r = r ? r : strv_push(&argv, "--override-os=linux");
	r = r ? r : strv_push(&argv, "--override-arch=amd64");
	r = r ? r : strv_push(&argv, "copy");
	r = r ? r : strv_push(&argv, "--remove-signatures");
	if (insecure && *bare)
		r = r ? r : strv_push(&argv, "--src-tls-verify=false");
	r = r ? r : strv_push(&argv, source);
	r = r ? r : strv_push(&argv, "oci:oci:image");
	if (r < 0)
		return r;
	return tool_run(&(struct tool){ TOOL_DEFAULTS, .argv = (const char *const *)argv,
				.cwd_fd = work, .stdout_fd = p->progress_fd },
		ret_reason);
}

static int pull_json(int work, const char *path, struct json_object **ret)
{
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r = file_read_at(work, path, PULL_JSON_MAX, &text, &len);

	return r < 0 ? r : json_codec_parse(text, len, ret);
}

static int pull_blob(int work, const char *digest, struct json_object **ret)
{
	CLEANUP_FREE char *path = NULL;

	if (!oci_digest_is_valid(digest))
		return -EBADMSG;
	path = str_printf("oci/blobs/sha256/%s", digest + 7);
	return path ? pull_json(work, path, ret) : -ENOMEM;
}

struct pulled {
	struct json_object *manifest, *configuration; /* owned */
	char digest[STORE_DIGEST_MAX + 1];            /* of the manifest */
	struct image_config config;                   /* owned */
};

static void pulled_finish(struct pulled *p)
{
	json_object_put(p->manifest);
	json_object_put(p->configuration);
	image_config_finish(&p->config);
}

static int pull_read(int work, struct pulled *ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *index = NULL;
	const char *bad = "the index", *digest;
	struct json_object *all;
	int r = pull_json(work, "oci/index.json", &index);

	all = r < 0 ? NULL : oci_array(index, "manifests");
	digest = oci_str(all ? json_object_array_get_idx(all, 0) : NULL, "digest");
	if (r == 0)
		r = pull_blob(work, digest, &ret->manifest);
	if (r == 0) {
		bad = "the configuration";
		memcpy(ret->digest, digest, sizeof ret->digest);
		digest = oci_str(oci_object(ret->manifest, "config"), "digest");
		r = pull_blob(work, digest, &ret->configuration);
	}
	if (r == 0)
		r = image_config_read(ret->configuration, &ret->config, &bad);
	if (r == -EBADMSG)
		*ret_reason = str_printf("%s of the image cannot be understood", bad);
	return r;
}

static void pull_say_fetched(const struct image_pull *p, const struct pulled *got)
{
	struct json_object *layers = oci_array(got->manifest, "layers");
	size_t n = layers ? json_object_array_length(layers) : 0;
	CLEANUP_FREE char *line = NULL;
	uint64_t bytes = 0;

	for (size_t i = 0; i < n; i++)
		bytes += oci_size(json_object_array_get_idx(layers, i));
	line = str_printf("unpacking %zu layer%s of %.1f MiB", n, n == 1 ? "" : "s",
		(double)bytes / (1 << 20));
	if (p->say && line)
		p->say(line);
}

static int pull_unpack(int work, bool mapped, char **ret_reason)
{
	return tool_run(&(struct tool){ TOOL_DEFAULTS, .mapped = mapped, .cwd_fd = work,
				.argv = (const char *[]){ "umoci", "raw", "unpack", "--image",
					"oci:image", "tree", NULL } },
		ret_reason);
}

static struct json_object *pull_configuration(
	const struct image_pull *p, const struct pulled *got, const char *diff_id)
{
	struct json_object *c = image_build_configuration(diff_id), *config, *labels;

	if (!c)
		return NULL;
	config = oci_object(c, "config");
	labels = json_object_new_object();
	json_object_object_add(config, "Labels", labels);
	json_object_object_add(labels, "io.uvms.image.source", json_object_new_string(p->ref));
	json_object_object_add(
		labels, "io.uvms.image.manifest", json_object_new_string(got->digest));
	if (image_config_write(&got->config, config) < 0) {
		json_object_put(c);
		return NULL;
	}
	return c;
}

/*
 * Directories that no layer names get the time of the unpacking: bounded by the image's own date, so that
 * the same image gives the same bytes. 0: it has none.
 */
static uint64_t pull_epoch(const struct pulled *got)
{
	const char *created = oci_str(got->configuration, "created");
	struct tm tm = { 0 };
	time_t t;

	if (!created || !strptime(created, "%Y-%m-%dT%H:%M:%S", &tm))
		return 0;
	t = timegm(&tm);
	return t > 0 && t <= time(NULL) ? (uint64_t)t : 0;
}

static int pull_add(struct store *s, const struct image_pull *p, int work, const struct pulled *got,
	struct image_built *ret, char **ret_reason)
{
	CLEANUP(store_temp_finish) struct store_temp temp = STORE_TEMP_IDLE;
	CLEANUP(json_codec_putp) struct json_object *config = NULL;
	struct layer_source source = {
		.dir = work, .tree = "tree", .mapped = geteuid() != 0, .epoch = pull_epoch(got)
	};
	struct store_edit_blob layer;
	int r;

	if (p->say)
		p->say("packing the tree into an EROFS layer");
	r = layer_build(s, &source, &temp, &layer, ret_reason);
	if (r < 0)
		return r;
	config = pull_configuration(p, got, layer.digest);
	if (!config)
		return -ENOMEM;
	struct store_edit e = { .kind = STORE_INDEX_IMAGE,
		.name = p->name,
		.config = config,
		.blobs = &layer,
		.n_blobs = 1 };
	ret->size_bytes = layer.size_bytes;
	return store_edit_add(s, &e, ret->digest, ret_reason);
}

static int pull_into(
	struct store *s, const struct image_pull *p, struct image_built *ret, char **ret_reason)
{
	CLEANUP(store_temp_finish) struct store_temp work = STORE_TEMP_IDLE;
	CLEANUP(pulled_finish) struct pulled got = { 0 };
	CLEANUP_FREE char *line = str_printf("fetching %s with skopeo", p->ref);
	int r;

	r = store_temp_dir(s, &work);
	if (r < 0)
		return r;
	if (p->say && line)
		p->say(line);
	r = pull_fetch(p, work.fd, ret_reason);
	if (r == 0)
		r = pull_read(work.fd, &got, ret_reason);
	if (r < 0)
		return r;
	pull_say_fetched(p, &got);
	/* umoci reads the layout inside the namespace, where we are nobody but its root */
	r = pull_unpack(work.fd, geteuid() != 0, ret_reason);
	return r < 0 ? r : pull_add(s, p, work.fd, &got, ret, ret_reason);
}

int image_pull(
	struct store *s, const struct image_pull *p, struct image_built *ret, char **ret_reason)
{
	static const char *const tools[] = { "skopeo", "umoci", "mkfs.erofs", NULL };
	static const char *const user_tools[] = { "unshare", "newuidmap", NULL };
	struct image_built built;
	sigset_t before;
	int r;

	r = tool_require(tools, ret_reason);
	if (r == 0 && geteuid() != 0)
		r = tool_require(user_tools, ret_reason);
	if (r < 0)
		return r;
	tool_signals_hold(&before);
	r = pull_into(s, p, &built, ret_reason);
	tool_signals_release(&before);
	if (r == 0)
		*ret = built;
	return r;
}
