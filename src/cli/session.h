/*
 * A command in the guest, seen from the caller: EXEC over an authenticated connection to the agent,
 * the caller's streams, signals and window size.
 */
#pragma once

#include <stdbool.h>

struct session_command {
	const char *const *argv;    /* borrowed, all; NULL-terminated */
	const char *const *env;     /* NULL: none */
	const char *user, *workdir; /* NULL: root, / */
	bool tty;
	bool stdin_open; /* pass stdin; else the command has /dev/null */
	bool is_main;    /* the VM ends with it */
};

enum session_source {
	SESSION_CMD,    /* the command's own exit status */
	SESSION_SIGNAL, /* it was killed by a signal: code is 128 + n */
	SESSION_UVMS,   /* it could not be started: 125, 126, 127 */
	SESSION_LOST,   /* the guest or the connection was lost: 125 */
};

struct session_result {
	enum session_source source;
	int code;
	char text[256]; /* why, for SESSION_UVMS and SESSION_LOST */
};

/* Takes FD over. Always fills *RET. */
void session_run_consume(int fd, const struct session_command *c, struct session_result *ret);

/* Says on stderr what SESSION_UVMS and SESSION_LOST were; returns the exit code. */
int session_report(const char *vm_name, const struct session_result *r);
