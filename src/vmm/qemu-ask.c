#include "qemu-ask.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "qmp.h"
#include "str.h"

static int ask_consume(struct qemu_ask *a, char *command, int fd)
{
	int r = qmp_ask_consume(a->qmp, command, fd);

	a->n_results += r == 0;
	return r;
}

/* NULL: out of memory. */
__attribute__((format(printf, 2, 0))) static char *ask_text(
	const char *verb, const char *format, va_list ap)
{
	CLEANUP_FREE char *arguments = NULL;

	if (vasprintf(&arguments, format, ap) < 0)
		arguments = NULL;
	return arguments ? str_printf("{\"execute\":\"%s\",\"arguments\":{%s}}", verb, arguments)
			 : NULL;
}

int qemu_ask_line(struct qemu_ask *a, const char *line)
{
	return ask_consume(a, strdup(line), -EBADF);
}

int qemu_ask(struct qemu_ask *a, const char *verb)
{
	return ask_consume(a, str_printf("{\"execute\":\"%s\"}", verb), -EBADF);
}

int qemu_ask_with(struct qemu_ask *a, const char *verb, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = ask_text(verb, format, ap);
	va_end(ap);
	return ask_consume(a, text, -EBADF);
}

int qemu_ask_fd_consume(struct qemu_ask *a, int fd, const char *verb, const char *format, ...)
{
	va_list ap;
	char *text;

	va_start(ap, format);
	text = ask_text(verb, format, ap);
	va_end(ap);
	return ask_consume(a, text, fd);
}
