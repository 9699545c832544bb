#include "vm-volume.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "parse.h"
#include "str.h"

int vm_volume_check_name(const char *name)
{
	if (!str_is_name(name, strlen(name), VM_VOLUME_NAME_MAX))
		return -EINVAL;
	return *name == '_' || *name == '-' ? -EINVAL : 0;
}

static const char *volume_path_fault(const char *path)
{
	if (*path != '/')
		return "the path in the guest must be absolute";
	if (strlen(path) > VM_VOLUME_PATH_MAX)
		return "the path in the guest is too long";
	if (path[strspn(path, "/.")] == 0)
		return "a volume cannot be the root";
	for (const char *p = path; (p = strstr(p, "/..")); p += 3) {
		if (p[3] == 0 || p[3] == '/')
			return "there must be no \"..\" in the path in the guest";
	}
	return NULL;
}

int vm_volume_parse(const char *text, struct vm_volume *ret, const char **ret_reason)
{
	struct vm_volume v = { .size_bytes = 0 };
	const char *colon = strchr(text, ':'), *size = strrchr(text, ':');
	size_t path_len;

	*ret_reason = "it must be NAME:PATH[:SIZE]";
	if (!colon || (size_t)(colon - text) >= sizeof v.name)
		return -EINVAL;
	memcpy(v.name, text, (size_t)(colon - text));
	if (vm_volume_check_name(v.name) < 0) {
		*ret_reason = "a volume's name is 1 to 64 of A-Z a-z 0-9 _ . -";
		return -EINVAL;
	}
	path_len = size == colon ? strlen(colon + 1) : (size_t)(size - colon - 1);
	if (snprintf(v.path, sizeof v.path, "%.*s", (int)path_len, colon + 1) >=
		(int)sizeof v.path) {
		*ret_reason = "the path in the guest is too long";
		return -EINVAL;
	}
	if (size != colon &&
		(parse_size(size + 1, &v.size_bytes) < 0 || v.size_bytes < VM_VOLUME_MIN_BYTES ||
			v.size_bytes > VM_VOLUME_MAX_BYTES)) {
		*ret_reason = "the size must be 16M to 16T, as in NAME:PATH:1G";
		return -EINVAL;
	}
	*ret_reason = volume_path_fault(v.path);
	if (*ret_reason)
		return -EINVAL;
	*ret = v;
	return 0;
}
