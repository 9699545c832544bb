/* Errors that cross the control socket: name ↔ errno ↔ exit code, one table; and their words. */
#pragma once

struct json_object;

/* Exit codes of uvms besides a command's own (sysexits are not used). */
enum {
	UVMS_EXIT_OK = 0,
	UVMS_EXIT_FAILED = 1,
	UVMS_EXIT_USAGE = 2,
	UVMS_EXIT_NOT_FOUND = 3, /* no such VM, image, kernel */
	UVMS_EXIT_BUSY = 4,      /* it exists, runs, or is held by somebody */
	UVMS_EXIT_TIMEOUT = 5,
	UVMS_EXIT_NOT_SUPPORTED = 6,
	UVMS_EXIT_UVMS = 125, /* run, exec, shell: uvms failed or the guest was lost */
};

/* "io.uvms.VM.NotReady" … for a negative errno; the reverse; the exit code of either. */
const char *control_error_name(int error);
int control_error_number(const char *name);
int control_error_exit(int error);

/* {"message": what, "cause": why, "next": what to do}; NULL parts are left out. */
struct json_object *control_error_words(const char *what, const char *cause, const char *next);
