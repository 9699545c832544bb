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

static int run_attach(int argc, char **argv)
{
	CLEANUP_FREE char *name = strdup(argv[1]);
	char *colon = name ? strchr(name, ':') : NULL;
	uint64_t size_bytes = 0;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (colon)
		*colon++ = 0;
	if (!name || vm_volume_check_name(name) < 0)
		return fail(UVMS_EXIT_USAGE, NULL, NULL,
			"\"%s\" cannot be a volume: its name is 1 to 64 of A-Z a-z 0-9 _ . -",
			argv[1]);
	if (colon && (parse_size(colon, &size_bytes) < 0 || size_bytes < VM_VOLUME_MIN_BYTES ||
			     size_bytes > VM_VOLUME_MAX_BYTES))
		return fail(
			UVMS_EXIT_USAGE, NULL, NULL, "the size must be 16M to 16T, as in NAME:1G");
	/* nothing is made for a VM that is not there */
	r = cli_call(argv[0], "io.uvms.VM.Status", NULL, NULL, NULL);
	if (r == 0)
		r = make_volume(name, size_bytes);
	return r ? r : call_volume(argv[0], "io.uvms.VM.Attach", name);
}

static int run_detach(int argc, char **argv)
{
	int r = cli_check_name(argv[0]);

	return r ? r : call_volume(argv[0], "io.uvms.VM.Detach", argv[1]);
}

const struct verb verb_attach = {
	.name = "attach",
	.arguments = "NAME VOLUME[:SIZE]",
	.summary = "give a running VM a volume",
	.description = "It is made when there is none. The guest sees a disk with its name as "
		       "serial number.",
	.min = 2,
	.max = 2,
	.run = run_attach,
};

const struct verb verb_detach = {
	.name = "detach",
	.arguments = "NAME VOLUME",
	.summary = "take an attached volume away again",
	.min = 2,
	.max = 2,
	.run = run_detach,
};
