/* A blocking caller of control sockets, for the CLI. */
#pragma once

#include <stdint.h>

struct json_object;

/* What a failed call said, for people. Free with control_failure_finish(). */
struct control_failure {
	char *message, *cause, *next; /* owned; NULL: nothing was said */
};

/* Connects to current/control below RUNTIME/NAME. -ENOENT: the VM does not run. */
int control_client_connect(int runtime_fd);

/*
 * Called about once a second while a call waits for its answer on FD, so that a supervisor which was stopped
 * by a signal keeps nobody waiting for ever. 0: go on; -errno: that is the call's result. NULL: nobody looks.
 * One for the whole process.
 */
void control_client_look_after(int (*look)(int fd, uint64_t waited_usec));

/*
 * Calls METHOD; PARAMETERS is consumed. Waits TIMEOUT_USEC (UINT64_MAX: for ever). *RET_PARAMETERS and
 * *RET_FD (may be NULL) are the caller's on success. -ECONNRESET: the supervisor ended without a
 * reply; else the errno of the error's name, with *FAILURE filled.
 */
int control_client_call(int fd, const char *method, struct json_object *parameters,
	uint64_t timeout_usec, struct json_object **ret_parameters, int *ret_fd,
	struct control_failure *failure);

/* The two halves of a call, for those who wait for FD to be readable in between. */
int control_client_begin(int fd, const char *method, struct json_object *parameters);
int control_client_end(int fd, uint64_t timeout_usec, struct json_object **ret_parameters,
	int *ret_fd, struct control_failure *failure);

/* Waits until the peer has closed FD. */
void control_client_wait_end(int fd);

void control_failure_finish(struct control_failure *f);
