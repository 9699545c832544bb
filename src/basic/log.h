/* One line per message on stderr, for programs only; libraries return errors instead. */
#pragma once

enum log_level {
	LOG_LEVEL_ERROR = 3, /* as in syslog(3) */
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/*
 * IDENT prefixes every line; it is borrowed for ever. UVMS_LOG=debug|info|warning|error sets the
 * threshold. When stderr is the journal ($JOURNAL_STREAM), lines carry "<N>" priorities.
 */
void log_open(const char *ident);
void log_at(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)
