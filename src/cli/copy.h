/*
 * One run of `uvms cp`: connections to agents that carry tar streams, what failed, the progress shown.
 *
 * What comes from a guest is unpacked by tree-unpack.h, which trusts no byte of it. Notes are printed up to
 * a number and counted beyond it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "copy-progress.h"

struct copy_options {
	bool follow, one_fs, owner, quiet;
};

struct copy_run {
	struct copy_options options;
	struct copy_progress progress;
	uint64_t n_failed, n_noted, n_entries;
	int signals;     /* owned; -EBADF: signals kill */
	int signo;       /* the one that ended it; 0: none */
	char first[512]; /* the first failure, for the summary */
};

void copy_run_init(struct copy_run *c, const struct copy_options *o, bool with_signals);
void copy_run_finish(struct copy_run *c);

/* Each returns 0 or the exit code after a complaint; failures of entries are only counted. */
int copy_get(
	struct copy_run *c, const char *vm, const char *path, const char *to, bool to_directory);
int copy_get_stream(
	struct copy_run *c, const char *vm, const char *path); /* to stdout, no end mark */
int copy_put(struct copy_run *c, char **paths, int n, const char *vm, const char *to);
int copy_put_stream(struct copy_run *c, const char *vm, const char *to); /* from stdin */

/* Says what failed on the whole, if anything; returns the exit code for CODE. */
int copy_run_report(struct copy_run *c, int code);
