#include "fail.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "control-client.h"
#include "control-error.h"
#include "str.h"

__attribute__((format(printf, 1, 0))) static void fail_print(const char *format, va_list ap)
{
	char text[4096], safe[8192];

	vsnprintf(text, sizeof text, format, ap);
	str_escape(safe, sizeof safe, text, strlen(text), "\n\t\\");
	fprintf(stderr, "uvms: %s\n", safe);
}

void fail_say(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fail_print(format, ap);
	va_end(ap);
}

static void fail_part(const char *label, const char *text)
{
	char safe[8192];

	if (!text)
		return;
	str_escape(safe, sizeof safe, text, strlen(text), "\n\t\\");
	fprintf(stderr, "  %s: %s\n", label, safe);
}

int fail(int exit_code, const char *cause, const char *next, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fail_print(format, ap);
	va_end(ap);
	fail_part("cause", cause);
	fail_part("next", next);
	return exit_code;
}

int fail_call(const char *vm_name, int error, const struct control_failure *f)
{
	if (error == -ENOENT && !f->message)
		return fail(UVMS_EXIT_NOT_FOUND, NULL, "uvms ls -a shows what there is",
			"%s does not run", vm_name);
	if (error == -ECONNRESET)
		return fail(UVMS_EXIT_FAILED, "its supervisor ended without an answer",
			"uvms logs --source=supervisor shows its last words", "%s is gone",
			vm_name);
	return fail(control_error_exit(error), f->cause, f->next, "%s: %s", vm_name,
		str_or(f->message, strerror(-error)));
}
