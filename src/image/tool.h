/*
 * Programs that builders drive: mkfs.erofs, mmdebstrap, tar … Their standard error is kept for the
 * message when they fail. While one runs, SIGINT, SIGTERM and SIGHUP end it and then the build, so
 * that whatever the builder has in hand is put away (hold them from the first thing made to the last
 * one removed).
 */
#pragma once

#include <signal.h>
#include <stdbool.h>

struct tool {
	const char *const *argv; /* borrowed, all; argv[0] is looked up in $PATH and sbin */
	const char *const *env;  /* NULL: the caller's */
	bool mapped; /* in a user namespace with the caller's subordinate ids, as its root */
	int stdin_fd, stdout_fd, cwd_fd; /* -EBADF: none, none, the caller's */
	int fd;                          /* becomes descriptor 3; -EBADF: none */
};

#define TOOL_DEFAULTS .stdin_fd = -EBADF, .stdout_fd = -EBADF, .cwd_fd = -EBADF, .fd = -EBADF

/*
 * 0 when it succeeded. With *RET_REASON (heap): -ENOPKG, it is not installed; -EIO, it failed (the
 * reason holds the end of what it said). -EINTR: a signal came.
 */
int tool_run(const struct tool *t, char **ret_reason);

/* Before work begins: are all of NAMES (NULL-terminated) there? 0, or -ENOPKG with *RET_REASON. */
int tool_require(const char *const *names, char **ret_reason);

/* rm -rf NAME below PARENT inside a user namespace, where its owners can be removed. */
int tool_remove_mapped(int parent, const char *name);

/* "KEY=VALUE" beside the caller's environment: a vector for struct tool, NULL without memory. */
char **tool_env(const char *const *settings);

void tool_signals_hold(sigset_t *ret_before);
void tool_signals_release(const sigset_t *before);
