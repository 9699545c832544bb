/* The processes of one incarnation: started with the lock, watched by pidfd, their output bounded. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct spawn;
struct sv;
struct sv_child;
struct vm_step;

/* Idle values, so that every other function may be called. */
void sv_child_init(struct sv_child *c, struct sv *sv, const char *name, int on_end);

/* STEP's arguments with PLACE replaced by VALUE. A vector on the heap, its strings borrowed. */
const char **sv_child_arguments(const struct vm_step *step, const char *place, const char *value);

/*
 * Starts the program; SPAWN's stdout and stderr are set here, and the lock's descriptor is added
 * behind its own. When it ends, sv_happen(on_end) follows.
 */
int sv_child_start(struct sv_child *c, struct spawn *spawn);

/* One that an earlier image of this process started: pid, pidfd, output_fd and end are set already. 0 or -errno. */
int sv_child_resume(struct sv_child *c);
bool sv_child_is_running(const struct sv_child *c);
void sv_child_signal(struct sv_child *c, int signo);

/* What all of the VM's processes but the namespace's init have in common. */
void sv_child_confine(struct sv_child *c, struct spawn *spawn);

/* Whether it has ended, be it that nobody has been told yet. False when it was never started. */
bool sv_child_has_ended(const struct sv_child *c);

/* After its end was told: it can be started again, and its log goes on. */
void sv_child_again(struct sv_child *c);

/* FROM, which runs, becomes TO, which has ended; TO's log goes on. FROM is idle afterwards. */
void sv_child_move(struct sv_child *to, struct sv_child *from);

/* SIGKILL, then waits for the end at most 2 s, and drains its output. */
void sv_child_finish(struct sv_child *c);

/* Takes what output there is already. */
void sv_child_catch_up(struct sv_child *c);

/* "exited with status 1", "was killed by signal 9 (Killed)": into BUF. */
const char *sv_child_describe(const struct sv_child *c, char *buf, size_t size);
