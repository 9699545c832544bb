/* The records of all verbs, one file each, and what they call of each other. */
#pragma once

#include <stdint.h>

#include "verbs.h"

extern const struct verb verb_run, verb_ls, verb_status, verb_inspect, verb_exec, verb_shell,
	verb_events, verb_prune, verb_cp, verb_console, verb_logs, verb_forward, verb_wait,
	verb_start, verb_stop, verb_restart, verb_kill, verb_pause, verb_resume, verb_set,
	verb_snapshot, verb_snapshot_ls, verb_snapshot_rm, verb_restore, verb_attach, verb_detach,
	verb_refresh, verb_rm, verb_image_build, verb_image_pull, verb_image_ls, verb_image_inspect,
	verb_image_rm, verb_volume_ls, verb_volume_rm, verb_kernel_add, verb_kernel_ls,
	verb_kernel_rm, verb_doctor, verb_version, verb_help;

/* Attaches the terminal to NAME's console until ^] or its end. 0, or the exit code. */
int cli_console(const char *name);

/* Starts the known VM NAME and waits until it is ready. 0, or the exit code. */
int cli_start(const char *name);

/* Stops NAME and says how it ended. 0, or the exit code. TIMEOUT_USEC 0: the VM's own. */
int cli_stop(const char *name, uint64_t timeout_usec, bool force, bool quiet);
