#include "control-error.h"

#include <errno.h>
#include <json-c/json.h>
#include <stddef.h>
#include <string.h>

#include "cleanup.h"

static const struct {
	int number;
	int exit_code;
	const char *name;
} errors[] = {
	{ -EIO, UVMS_EXIT_FAILED, "io.uvms.VM.Failed" }, /* also for all that are not named */
	{ -EINVAL, UVMS_EXIT_USAGE, "org.varlink.service.InvalidParameter" },
	{ -ENOSYS, UVMS_EXIT_NOT_SUPPORTED, "org.varlink.service.MethodNotFound" },
	{ -EOPNOTSUPP, UVMS_EXIT_NOT_SUPPORTED, "io.uvms.VM.NotSupported" },
	{ -EACCES, UVMS_EXIT_FAILED, "org.varlink.service.PermissionDenied" },
	{ -ENOENT, UVMS_EXIT_NOT_FOUND, "io.uvms.VM.NotFound" },
	{ -EBUSY, UVMS_EXIT_BUSY, "io.uvms.VM.Busy" },
	{ -EEXIST, UVMS_EXIT_BUSY, "io.uvms.VM.Exists" },
	{ -ETIMEDOUT, UVMS_EXIT_TIMEOUT, "io.uvms.VM.TimedOut" },
	{ -ENOTCONN, UVMS_EXIT_FAILED, "io.uvms.VM.NotReady" },
	{ -ESHUTDOWN, UVMS_EXIT_FAILED, "io.uvms.VM.Ended" },
	{ -ECONNREFUSED, UVMS_EXIT_FAILED, "io.uvms.VM.Refused" },
};

const char *control_error_name(int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		if (errors[i].number == error)
			return errors[i].name;
	}
	return errors[0].name;
}

int control_error_number(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		if (strcmp(errors[i].name, name) == 0)
			return errors[i].number;
	}
	return errors[0].number;
}

int control_error_exit(int error)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		if (errors[i].number == error)
			return errors[i].exit_code;
	}
	return UVMS_EXIT_FAILED;
}

struct json_object *control_error_words(const char *what, const char *cause, const char *next)
{
	struct json_object *obj = json_object_new_object();

	if (!obj)
		return NULL;
	if (what)
		json_object_object_add(obj, "message", json_object_new_string(what));
	if (cause)
		json_object_object_add(obj, "cause", json_object_new_string(cause));
	if (next)
		json_object_object_add(obj, "next", json_object_new_string(next));
	return obj;
}
