/*
 * Changes of a VM that runs, asked for by clients: one at a time, answered when the VMM says that it is so. What
 * the back-end cannot do is refused before anything is touched.
 */
#pragma once

#include <stdbool.h>

struct control_call;
struct sv;
struct vmm_op;

/*
 * Answers CALL, now or later. What OP points at is the caller's again when it returns. ENDED (may be NULL) is called
 * once, now or later, with 0 (it is so) or -errno.
 */
void sv_change_ask(struct sv *sv, struct control_call *call, const struct vmm_op *op,
	void (*ended)(struct sv *sv, int error, const char *reason));

/* One for ourselves, whatever the state. 0, and ENDED is called later; or -errno, and it is not. */
int sv_change_do(struct sv *sv, const struct vmm_op *op,
	void (*ended)(struct sv *sv, int error, const char *reason));

/* One is, or a snapshot, or a refresh: there shall be no other. */
bool sv_change_is_under_way(const struct sv *sv);

/* CALL is gone: nobody is to be answered. What was begun goes on. */
void sv_change_forget(struct sv *sv, struct control_call *call);

/* Resumes a paused guest for its stop, without a word to anybody. 0 or -errno. */
int sv_change_wake(struct sv *sv);

/* The VM ends: who still waits is told. */
void sv_change_finish(struct sv *sv);
