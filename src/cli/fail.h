/* What a person reads when something went wrong: what, cause, next command. */
#pragma once

struct control_failure;

/* "uvms: …" on stderr. */
void fail_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints the three parts (cause and next may be NULL) and returns EXIT_CODE. */
int fail(int exit_code, const char *cause, const char *next, const char *format, ...)
	__attribute__((format(printf, 4, 5)));

/* The same for a control call on VM_NAME that returned ERROR; -ECONNRESET: the supervisor is gone. */
int fail_call(const char *vm_name, int error, const struct control_failure *f);
