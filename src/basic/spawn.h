/*
 * Starts a program with exactly the descriptors named. fork() + exec(): only for processes that map
 * no guest memory (the supervisor and the CLI), where it costs a fraction of a millisecond.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define SPAWN_FDS_MAX 32

struct spawn {
	const char *path;        /* borrowed: absolute, or found in $PATH */
	const char *const *argv; /* borrowed */
	const char *const *env;  /* borrowed; NULL keeps the caller's */
	const int *fds;          /* borrowed: fds[i] becomes descriptor 3 + i; -EBADF: a gap */
	size_t n_fds;
	int stdin_fd, stdout_fd, stderr_fd; /* borrowed; -EBADF is /dev/null */
	int cwd_fd;                         /* borrowed; -EBADF keeps the caller's */
	uid_t uid;                          /* (uid_t)-1 keeps; it need not reach PATH */
	gid_t gid;                          /* (gid_t)-1 keeps */
	bool no_new_privs;                  /* also empties every capability set when uid changes */
	gid_t extra_gid;   /* one supplementary group beside GID; (gid_t)-1: none */
	int unshare_flags; /* CLONE_NEW…, best effort: what is refused is left shared */
	int death_signal;  /* when the parent dies (PR_SET_PDEATHSIG); 0: none */
	bool keep_session; /* default: setsid() */
	const struct spawn_limit {
		int resource; /* RLIMIT_… */
		unsigned long long value;
	} * limits; /* borrowed */
	size_t n_limits;
};

#define SPAWN_DEFAULTS                                                                             \
	.stdin_fd = -EBADF, .stdout_fd = -EBADF, .stderr_fd = -EBADF, .cwd_fd = -EBADF,            \
	.uid = (uid_t)-1, .gid = (gid_t)-1, .extra_gid = (gid_t)-1

/*
 * Returns 0 with *RET_PIDFD once the program is executed; the error of the failed step otherwise
 * (-ENOENT: no such program), and nothing is left behind then.
 */
int spawn_process(const struct spawn *s, pid_t *ret_pid, int *ret_pidfd);

#define SPAWN_APART_MAX 256 /* bytes of an answer */

/*
 * Runs WORK in a child that dies with us, and waits for it: what it loads and how much memory it takes never is ours.
 * Its answer, LEN bytes, becomes OUT. The child has all our descriptors and locks: WORK ends by itself and starts
 * nothing. What WORK returned (0, or -errno and nothing in OUT); -ECHILD: it was killed, or stopped and therefore
 * killed; others: there was no child.
 */
int spawn_apart(int (*work)(void *arg, void *answer), void *arg, void *out, size_t len);

/* Waits for the end: the exit status, 128 + n for signal n, or -errno. PIDFD stays the caller's. */
int spawn_wait(int pidfd);
