#include "vm-name.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "str.h"

static bool name_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static const char *name_fault(const char *name)
{
	size_t len = strlen(name);

	if (len == 0)
		return "it is empty";
	if (len > VM_NAME_MAX)
		return "it is longer than 64 characters";
	for (size_t i = 0; i < len; i++) {
		if (!name_alnum(name[i]) && name[i] != '-' && name[i] != '.')
			return "only letters, digits, '-' and '.' may be in it";
	}
	if (!name_alnum(name[0]) || !name_alnum(name[len - 1]))
		return "it must begin and end with a letter or digit";
	if (strstr(name, ".."))
		return "it has two dots in a row";
	return NULL;
}

int vm_name_check(const char *name, const char **ret_reason)
{
	const char *fault = name_fault(name);

	if (fault && ret_reason)
		*ret_reason = fault;
	return fault ? -EINVAL : 0;
}

void vm_name_random(char out[static VM_NAME_MAX + 1])
{
	uint32_t tag = 0;

	if (getrandom(&tag, sizeof tag, 0) != sizeof tag)
		tag = (uint32_t)str_hash(out);
	snprintf(out, VM_NAME_MAX + 1, "vm-%08x", tag);
}

void vm_name_id(const char *kind, const char *name, char out[static 33])
{
	char text[160];
	uint64_t high, low;

	snprintf(text, sizeof text, "0 uvms %s %s", kind, name);
	high = str_hash(text);
	text[0] = '1';
	low = str_hash(text);
	snprintf(out, 33, "%016llx%016llx", (unsigned long long)high, (unsigned long long)low);
	/* a random (version 4) UUID in form, as sd-id128 makes them */
	out[12] = '4';
	out[16] = "89ab"[low >> 60 & 3];
}
