/*
 * A program started for a session or for the boot description: its credentials, environment, streams
 * and end. fork() is cheap here, the agent is small. The child reports a failed step through a CLOEXEC
 * pipe, so "started" means that execve() has succeeded.
 */
#pragma once

#include "guest-reap.h"
#include "wire.h"

struct guest_proc_spec {
	struct wire_str user, workdir, term;
	struct wire_strv argv, env;
	bool tty, with_stdin;
	bool main;    /* what the VM is for: gets its working directory and credentials made fit */
	bool console; /* streams are stdin /dev/null and the caller's stdout and stderr */
	uint16_t rows, cols;
};

struct guest_proc {
	struct guest_child child;
	struct guest_source status_source;
	int status_fd;         /* owned; until the outcome of execve() is known */
	pid_t pid;             /* also the process group; 0 when reaped */
	pid_t started_pid;     /* the same, kept */
	siginfo_t ended_early; /* before the outcome of execve() was read */
	bool tty;
	int stdin_fd, stdout_fd, stderr_fd; /* owned until taken, non-blocking; -EBADF: none */

	/* Once, unless on_failed comes; does not destroy P. */
	void (*on_started)(struct guest_proc *p);
	/* CODE: 125 … 127; nothing more comes after it. */
	void (*on_failed)(struct guest_proc *p, uint8_t code, int error, const char *step);
	/* After on_started. */
	void (*on_exit)(struct guest_proc *p, const siginfo_t *ending);
};

/* What every program finds beside its own environment: the image's. V (a view) must stay. */
void guest_proc_set_environment(const struct wire_strv *v);

/* The limit of open files that they start with, where the agent's own is another. */
struct rlimit;
void guest_proc_set_fd_limit(const struct rlimit *limit);

/*
 * Starts SPEC; the callbacks of P have been set by the caller. Returns 0; or -errno with *RET_STEP,
 * and no callback comes.
 */
int guest_proc_start(struct guest_proc *p, const struct guest_proc_spec *spec, struct guest_loop *l,
	struct guest_reaper *reaper, const char **ret_step);
void guest_proc_finish(struct guest_proc *p); /* closes, forgets; kills nothing */

/* The process group; for a TTY the foreground one. */
void guest_proc_signal(struct guest_proc *p, int signo, int tty_fd);
