/* What several verbs need: the directories, a VM's connection, starting its supervisor. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vm-dirs.h"

struct json_object;
struct vm_status;

/* The directories of this run; exits with a message when they cannot be used. */
const struct vm_dirs *cli_dirs(void);

/* Checks NAME; 0, or the exit code after a complaint. */
int cli_check_name(const char *name);

/* Says that there is no such VM, and which one may have been meant. The exit code. */
int cli_no_vm(const char *name);

/* The same for one that must run: it does not, or there is none. */
int cli_not_running(const char *name);

/* A control connection to NAME, or -errno (no complaint). */
int cli_connect(const char *name);

/* Calls METHOD of NAME, complaining when it fails. 0, or the exit code. */
int cli_call(const char *name, const char *method, struct json_object *parameters,
	struct json_object **ret_reply, int *ret_fd);

/*
 * Starts NAME's supervisor and hands over a connection to it. OWNED: the VM ends with that connection.
 * 0, or the exit code after a complaint.
 */
int cli_launch(const char *name, bool owned, int *ret_client_fd);

/* The same, to go on from SNAPSHOT. */
int cli_launch_from(const char *name, const char *snapshot, int *ret_client_fd);

/* Waits on CLIENT_FD until NAME is ready; 0, or the exit code after a complaint. Warns of degraded. */
int cli_wait_ready(const char *name, int client_fd);

/* Takes the status out of a reply; false when there is none. */
bool cli_reply_status(struct json_object *reply, struct vm_status *ret);

/*
 * NAME's supervisor, at the other end of FD, does not answer: kills it, which ends all of the VM, and puts
 * what is left in order. 0 or -errno.
 */
int cli_end_supervisor(const char *name, int fd);

/* Calls FN for each known VM in order of names; stops at a non-zero result and returns it. */
int cli_each_vm(int (*fn)(const char *name, void *userdata), void *userdata);

/* Prints OBJ (consumed), pretty, with a newline. */
void cli_print_json(struct json_object *obj);
