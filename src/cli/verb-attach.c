#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "parse.h"
#include "store.h"
#include "str.h"
#include "verb-list.h"
#include "vm-volume.h"
#include "volume.h"

static const char *arg_attach_net, *arg_attach_share, *arg_attach_image;
static char **arg_publish;
static const char *arg_detach_share, *arg_detach_image;
static bool arg_detach_net;

static int call_attach(const char *vm, const char *kind, const char *what)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, kind, json_object_new_string(what));
	return cli_call(vm, "io.uvms.VM.Attach", p, NULL, NULL);
}

/* Makes it when there is none, which takes too long for a supervisor; lets go of it at once. */
static int make_volume(const char *name, uint64_t size_bytes)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(cli_dirs(), "volumes"), fd = -EBADF;
	CLEANUP_FREE char *reason = NULL;

	if (volumes < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-volumes), NULL,
			"the directory of the volumes cannot be opened");
	fd = volume_open(volumes, name, size_bytes, &reason);
	if (fd >= 0)
		return 0;
	return fail(control_error_exit(fd), reason ? reason : strerror(-fd), NULL,
		"volume %s cannot be used", name);
}

static int attach_volume(const char *vm, const char *text)
{
	CLEANUP_FREE char *name = strdup(text);
	char *colon = name ? strchr(name, ':') : NULL;
	uint64_t size_bytes = 0;
	int r;

	if (colon)
		*colon++ = 0;
	if (!name || vm_volume_check_name(name) < 0)
		return fail(UVMS_EXIT_USAGE, NULL, NULL,
			"\"%s\" cannot be a volume: its name is 1 to 64 of A-Z a-z 0-9 _ . -",
			text);
	if (colon && (parse_size(colon, &size_bytes) < 0 || size_bytes < VM_VOLUME_MIN_BYTES ||
			     size_bytes > VM_VOLUME_MAX_BYTES))
		return fail(
			UVMS_EXIT_USAGE, NULL, NULL, "the size must be 16M to 16T, as in NAME:1G");
	/* nothing is made for a VM that is not there */
	r = cli_call(vm, "io.uvms.VM.Status", NULL, NULL, NULL);
	if (r == 0)
		r = make_volume(name, size_bytes);
	return r ? r : call_attach(vm, "volume", name);
}

static int attach_network(const char *vm)
{
	struct json_object *p = json_object_new_object(), *publish = json_object_new_array();

	json_object_object_add(p, "net", json_object_new_string("user"));
	for (char **v = arg_publish; v && *v; v++)
		json_object_array_add(publish, json_object_new_string(*v));
	if (arg_publish)
		json_object_object_add(p, "publish", publish);
	else
		json_object_put(publish);
	return cli_call(vm, "io.uvms.VM.Attach", p, NULL, NULL);
}

/* "WHAT:PATH", where both may have colons: PATH begins at the last ":/". *RET_WHAT is the heap's. */
static int split(const char *text, const char *option, char **ret_what, const char **ret_path)
{
	const char *at = NULL;

	for (const char *p = text; (p = strstr(p, ":/")); p++)
		at = p;
	if (!at || at == text)
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms attach NAME --share DIR:PATH, or --image IMAGE:PATH",
			"--%s=%s: a colon and an absolute path in the guest are missing", option,
			text);
	*ret_what = strndup(text, (size_t)(at - text));
	*ret_path = at + 1;
	return *ret_what ? 0 : fail(UVMS_EXIT_FAILED, NULL, NULL, "out of memory");
}

static int call_mount(const char *vm, const char *kind, const char *what, const char *path)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, kind, json_object_new_string(what));
	json_object_object_add(p, "path", json_object_new_string(path));
	return cli_call(vm, "io.uvms.VM.Attach", p, NULL, NULL);
}

static int attach_share(const char *vm)
{
	CLEANUP_FREE char *directory = NULL, *cwd = NULL, *whole = NULL;
	const char *path;
	int r = split(arg_attach_share, "share", &directory, &path);

	if (r)
		return r;
	/* a file system that does not answer holds us up, not the supervisor */
	fd_close(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
	if (*directory == '/')
		return call_mount(vm, "share", directory, path);
	cwd = getcwd(NULL, 0);
	whole = cwd ? str_printf("%s/%s", cwd, directory) : NULL;
	if (!whole)
		return fail(UVMS_EXIT_FAILED, strerror(errno), NULL,
			"the working directory is not known");
	return call_mount(vm, "share", whole, path);
}

/* What was never checked is hashed, which takes too long for a supervisor: here, where somebody waits anyway. */
static void check_layers(const char *name)
{
	CLEANUP(store_closep) struct store *store = cli_store();
	CLEANUP_FREE char *reason = NULL;
	struct store_image image = { 0 };

	if (store_find_image(store, name, &image, &reason) < 0)
		return; /* that is told by who is asked for it */
	for (char **layer = image.layers; layer && *layer; layer++) {
		CLEANUP_FREE char *fault = NULL;

		fd_close(store_open_blob(store, *layer, &fault));
	}
	store_image_finish(&image);
}

static int attach_image(const char *vm)
{
	CLEANUP_FREE char *image = NULL;
	const char *path;
	int r = split(arg_attach_image, "image", &image, &path);

	if (r == 0)
		r = cli_call(vm, "io.uvms.VM.Status", NULL, NULL, NULL);
	if (r)
		return r;
	check_layers(image);
	return call_mount(vm, "image", image, path);
}

static int run_attach(int argc, char **argv)
{
	bool net = arg_attach_net || arg_publish;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (net + !!arg_attach_share + !!arg_attach_image + (argc == 2) != 1)
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms attach NAME VOLUME, or with --net=user, --share DIR:PATH or --image "
			"IMAGE:PATH instead",
			"a volume, a network, a directory or an image is to be attached, one at a "
			"time");
	if (arg_attach_net && !str_eq(arg_attach_net, "user"))
		return fail(UVMS_EXIT_USAGE, NULL, NULL, "--net=%s: not supported; there is user",
			arg_attach_net);
	if (arg_attach_share)
		return attach_share(argv[0]);
	if (arg_attach_image)
		return attach_image(argv[0]);
	return net ? attach_network(argv[0]) : attach_volume(argv[0], argv[1]);
}

static int call_detach(const char *vm, const char *kind, const char *what)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, kind, json_object_new_string(what));
	return cli_call(vm, "io.uvms.VM.Detach", p, NULL, NULL);
}

static int run_detach(int argc, char **argv)
{
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (arg_detach_net + !!arg_detach_share + !!arg_detach_image + (argc == 2) != 1)
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms detach NAME VOLUME, or with --net, --share PATH or --image PATH "
			"instead",
			"a volume, the network, a directory or an image is to be detached");
	if (arg_detach_share)
		return call_detach(argv[0], "share", arg_detach_share);
	if (arg_detach_image)
		return call_detach(argv[0], "image", arg_detach_image);
	return arg_detach_net ? call_detach(argv[0], "net", "user")
			      : call_detach(argv[0], "volume", argv[1]);
}

static const struct option_def attach_options[] = {
	{ "net", 0, "user", OPTION_STRING, &arg_attach_net, "a network, instead of a volume" },
	{ "publish", 'p', "[ADDR:]HOST:GUEST[/udp]", OPTION_STRV, &arg_publish,
		"a port of the host that leads into the guest; implies --net=user" },
	{ "share", 0, "DIR:PATH", OPTION_STRING, &arg_attach_share,
		"a directory of the host, mounted at PATH in the guest" },
	{ "image", 0, "IMAGE:PATH", OPTION_STRING, &arg_attach_image,
		"the files of an image, mounted at PATH in the guest, read-only" },
	{ 0 },
};

static const struct option_def detach_options[] = {
	{ "net", 0, NULL, OPTION_FLAG, &arg_detach_net, "the network, instead of a volume" },
	{ "share", 0, "PATH", OPTION_STRING, &arg_detach_share,
		"the directory of the host that is at PATH in the guest" },
	{ "image", 0, "PATH", OPTION_STRING, &arg_detach_image,
		"the image that is at PATH in the guest" },
	{ 0 },
};

const struct verb verb_attach = {
	.name = "attach",
	.arguments = "[--net=user [-p PORT]... | --share DIR:PATH | --image IMAGE:PATH] NAME "
		     "[VOLUME[:SIZE]]",
	.summary = "give a running VM a volume, a network, a directory or an image",
	.description =
		"A volume is made when there is none. The guest sees a disk with its name as "
		"serial number.\nA network is set up in the guest; a directory of the host and the "
		"files of an image are mounted in it. They last until they are detached or the VM "
		"ends.",
	.options = attach_options,
	.min = 1,
	.max = 2,
	.run = run_attach,
};

const struct verb verb_detach = {
	.name = "detach",
	.arguments = "[--net | --share PATH | --image PATH] NAME [VOLUME]",
	.summary = "take away again what was attached",
	.options = detach_options,
	.min = 1,
	.max = 2,
	.run = run_detach,
};
