/*
 * A command in the guest, seen from the caller: EXEC over an authenticated connection to the agent,
 * the caller's streams, signals and window size.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct session_command {
	const char *vm_name;
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
	SESSION_LOST,   /* the guest was lost: 125, or 128 + n when abandoned */
};

struct session_result {
	enum session_source source;
	int code;
	bool abandoned; /* SESSION_LOST: a signal to us ended it, unanswered */
	char text[256]; /* why, for SESSION_UVMS and SESSION_LOST */
};

/*
 * Over FD, an authenticated connection to an agent of wire version VERSION, which is taken over; when
 * it is lost, over another one of that VM. Always fills *RET.
 */
void session_run_consume(
	int fd, uint32_t version, const struct session_command *c, struct session_result *ret);

/* Says on stderr what SESSION_UVMS and SESSION_LOST were; returns the exit code. */
int session_report(const char *vm_name, const struct session_result *r);
