#include <json-c/json.h>
#include <stddef.h>

#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "verb-list.h"

static uint64_t arg_memory;
static uint32_t arg_cpus;

static const struct option_def options[] = {
	{ "memory", 'm', "SIZE", OPTION_SIZE, &arg_memory, "up to the --max-memory of its start" },
	{ "cpus", 0, "N", OPTION_COUNT, &arg_cpus, "up to the --max-cpus of its start" },
	{ 0 },
};

static int set_one(const char *name, const char *key, uint64_t value)
{
	struct json_object *p = json_object_new_object();

	json_object_object_add(p, key, json_object_new_uint64(value));
	return cli_call(name, "io.uvms.VM.Set", p, NULL, NULL);
}

static int run(int argc, char **argv)
{
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (!arg_memory && !arg_cpus)
		return fail(UVMS_EXIT_USAGE, NULL, "--memory=SIZE, --cpus=N, or both",
			"nothing is to be set");
	if (arg_memory)
		r = set_one(argv[0], "memory_bytes", arg_memory);
	if (r == 0 && arg_cpus)
		r = set_one(argv[0], "cpus", arg_cpus);
	return r;
}

const struct verb verb_set = {
	.name = "set",
	.arguments = "[--memory=SIZE] [--cpus=N] NAME",
	.summary = "change memory and CPUs of a VM that runs",
	.description = "Memory goes both ways, between what the VM was started with and its "
		       "--max-memory;\n"
		       "the guest gives back what it can spare. CPUs likewise.",
	.options = options,
	.min = 1,
	.max = 1,
	.run = run,
};
