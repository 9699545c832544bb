#include "log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "str.h"

static const char *log_ident = "uvms";
static enum log_level log_threshold = LOG_LEVEL_INFO;
static bool log_to_journal;

void log_open(const char *ident)
{
	static const struct {
		const char *name;
		enum log_level level;
	} names[] = {
		{ "error", LOG_LEVEL_ERROR },
		{ "warning", LOG_LEVEL_WARNING },
		{ "info", LOG_LEVEL_INFO },
		{ "debug", LOG_LEVEL_DEBUG },
	};
	const char *want = getenv("UVMS_LOG");

	log_ident = ident;
	log_to_journal = getenv("JOURNAL_STREAM") != NULL;
	for (size_t i = 0; want && i < ARRAY_SIZE(names); i++) {
		if (str_eq(want, names[i].name))
			log_threshold = names[i].level;
	}
}

void log_at(enum log_level level, const char *format, ...)
{
	char text[1024], line[2200];
	va_list ap;
	int n, head;

	if (level > log_threshold)
		return;
	va_start(ap, format);
	n = vsnprintf(text, sizeof text, format, ap);
	va_end(ap);
	if (n < 0)
		return;
	if ((size_t)n >= sizeof text)
		n = sizeof text - 1;

	/* one write() a line, so that processes which share stderr do not mix theirs */
	head = log_to_journal ? snprintf(line, sizeof line, "<%d>%s: ", level, log_ident)
			      : snprintf(line, sizeof line, "%s: ", log_ident);
	n = (int)str_escape(line + head, sizeof line - (size_t)head - 1, text, (size_t)n, "\n\t\\");
	line[head + n] = '\n';
	if (write(STDERR_FILENO, line, (size_t)(head + n + 1)) < 0)
		return;
}
