#include "run-input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "control-error.h"
#include "fail.h"
#include "file.h"
#include "str.h"
#include "vm-spec.h"

#define ENV_FILE_MAX (128 * 1024) /* bytes */

static int cannot_read(const char *file, int error)
{
	return fail(UVMS_EXIT_USAGE, strerror(-error), NULL, "%s cannot be read", file);
}

static bool is_env_name(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)s[i] <= ' ' || s[i] == '#')
			return false;
	}
	return len > 0;
}

static int env_line(const char *file, size_t number, const char *line, char ***env)
{
	size_t name_len = strcspn(line, "=");
	const char *value;

	if (!*line || *line == '#')
		return 0;
	if (!is_env_name(line, name_len))
		return fail(UVMS_EXIT_USAGE, NULL, "each line is NAME=VALUE, NAME or # a comment",
			"%s, line %zu is no assignment", file, number);
	if (line[name_len])
		return strv_push(env, line);
	value = getenv(line);
	return value ? strv_pushf(env, "%s=%s", line, value) : 0;
}

int run_input_env_file(const char *file, char ***env)
{
	CLEANUP_FREE char *text = NULL;
	char *rest, *line;
	size_t len, number = 0;
	int r;

	r = file_read_at(AT_FDCWD, file, ENV_FILE_MAX, &text, &len);
	if (r < 0)
		return cannot_read(file, r);
	if (strlen(text) != len)
		return fail(UVMS_EXIT_USAGE, NULL, NULL, "%s holds a NUL byte", file);
	rest = text;
	while (r == 0 && (line = strsep(&rest, "\n"))) {
		line[strcspn(line, "\r")] = 0;
		r = env_line(file, ++number, line, env);
	}
	return r < 0 ? fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be read", file) : r;
}

int run_input_credential_name(const char *assignment, char ***names)
{
	const char *equals = strchr(assignment, '=');
	CLEANUP_FREE char *name =
		equals ? strndup(assignment, (size_t)(equals - assignment)) : NULL;

	if (!name || !equals[1] || vm_spec_check_credential(name) < 0)
		return fail(UVMS_EXIT_USAGE, NULL,
			"--credential NAME=FILE, NAME of A-Z a-z 0-9 _ . -",
			"\"%s\" names no credential", assignment);
	for (char **n = *names; n && *n; n++) {
		if (str_eq(*n, name))
			return fail(UVMS_EXIT_USAGE, NULL, NULL, "the credential %s is given twice",
				name);
	}
	return strv_push(names, name) < 0 ? UVMS_EXIT_FAILED : 0;
}

static int keep_one(int dir, const char *assignment, size_t *left)
{
	const char *equals = strchr(assignment, '=');
	CLEANUP_FREE char *name = strndup(assignment, (size_t)(equals - assignment)), *data = NULL;
	size_t len;
	int r;

	if (!name)
		return UVMS_EXIT_FAILED;
	r = file_read_at(AT_FDCWD, equals + 1, *left, &data, &len);
	if (r == -EFBIG)
		return fail(UVMS_EXIT_USAGE, NULL, NULL,
			"the credentials are larger than %d KiB together",
			VM_CREDENTIAL_MAX_BYTES / 1024);
	if (r < 0)
		return cannot_read(equals + 1, r);
	*left -= len;
	r = file_write_at(dir, name, data, len, 0400);
	explicit_bzero(data, len);
	return r < 0 ? fail(UVMS_EXIT_FAILED, strerror(-r), NULL,
			       "the credential %s cannot be kept", name)
		     : 0;
}

int run_input_keep_credentials(int vm_fd, char **assignments)
{
	CLEANUP_CLOSE int dir = -EBADF;
	size_t left = VM_CREDENTIAL_MAX_BYTES;
	int r = 0;

	if (!assignments)
		return 0;
	dir = file_mkdir_at(vm_fd, "credentials", 0700);
	if (dir < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-dir), NULL, "credentials cannot be kept");
	for (; r == 0 && *assignments; assignments++)
		r = keep_one(dir, *assignments, &left);
	return r;
}
