#include "vmm-program.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "path.h"

int vmm_program_find(const char *program, const char *env, char **ret)
{
	const char *override = env ? getenv(env) : NULL;

	if (override && *override) {
		*ret = strdup(override);
		return *ret ? 0 : -ENOMEM;
	}
	return path_find_program(program, ret);
}
