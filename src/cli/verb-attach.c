#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "parse.h"
#include "str.h"
#include "verb-list.h"
#include "vm-volume.h"
#include "volume.h"

static const char *arg_attach_net;
static char **arg_publish;
static bool arg_detach_net;

static int call_volume(const char *vm, const char *method, const char *volume)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, "volume", json_object_new_string(volume));
	return cli_call(vm, method, p, NULL, NULL);
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
	return r ? r : call_volume(vm, "io.uvms.VM.Attach", name);
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

static int run_attach(int argc, char **argv)
{
	bool net = arg_attach_net || arg_publish;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (net == (argc == 2))
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms attach NAME VOLUME, or uvms attach --net=user NAME",
			"a volume or a network is to be attached, one at a time");
	if (arg_attach_net && !str_eq(arg_attach_net, "user"))
		return fail(UVMS_EXIT_USAGE, NULL, NULL, "--net=%s: not supported; there is user",
			arg_attach_net);
	return net ? attach_network(argv[0]) : attach_volume(argv[0], argv[1]);
}

static int run_detach(int argc, char **argv)
{
	struct json_object *p;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (arg_detach_net == (argc == 2))
		return fail(UVMS_EXIT_USAGE, NULL,
			"uvms detach NAME VOLUME, or uvms detach --net NAME",
			"a volume or the network is to be detached");
	if (!arg_detach_net)
		return call_volume(argv[0], "io.uvms.VM.Detach", argv[1]);
	p = json_object_new_object();
	json_object_object_add(p, "net", json_object_new_string("user"));
	return cli_call(argv[0], "io.uvms.VM.Detach", p, NULL, NULL);
}

static const struct option_def attach_options[] = {
	{ "net", 0, "user", OPTION_STRING, &arg_attach_net, "a network, instead of a volume" },
	{ "publish", 'p', "[ADDR:]HOST:GUEST[/udp]", OPTION_STRV, &arg_publish,
		"a port of the host that leads into the guest; implies --net=user" },
	{ 0 },
};

static const struct option_def detach_options[] = {
	{ "net", 0, NULL, OPTION_FLAG, &arg_detach_net, "the network, instead of a volume" },
	{ 0 },
};

const struct verb verb_attach = {
	.name = "attach",
	.arguments = "[--net=user [-p PORT]...] NAME [VOLUME[:SIZE]]",
	.summary = "give a running VM a volume or a network",
	.description =
		"A volume is made when there is none. The guest sees a disk with its name as "
		"serial number.\nA network is set up in the guest, and lasts until it is "
		"detached or the VM ends.",
	.options = attach_options,
	.min = 1,
	.max = 2,
	.run = run_attach,
};

const struct verb verb_detach = {
	.name = "detach",
	.arguments = "[--net] NAME [VOLUME]",
	.summary = "take an attached volume or network away again",
	.options = detach_options,
	.min = 1,
	.max = 2,
	.run = run_detach,
};
