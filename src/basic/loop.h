/*
 * A small epoll loop. Sources, timers and jobs are embedded in what they serve (CONTAINER_OF gets
 * there), so nothing is allocated after loop_init(). A source that is removed while its event waits
 * in the present batch is not called any more. All functions return 0 or -errno.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "list.h"

#define LOOP_BATCH 64

struct loop_source {
	int fd; /* borrowed; -EBADF while not added */
	void (*fn)(struct loop_source *s, uint32_t events);
};

struct loop_timer {
	uint64_t at_usec; /* CLOCK_MONOTONIC */
	void (*fn)(struct loop_timer *t);
	struct list link; /* in loop.timers, sorted */
};

/* Work that runs once, in the next turn, before the loop sleeps. */
struct loop_job {
	void (*fn)(struct loop_job *j);
	struct list link; /* in loop.jobs */
};

struct loop {
	int epoll_fd; /* owned */
	bool stopped;
	int exit_code;
	struct list timers; /* of loop_timer.link */
	struct list jobs;   /* of loop_job.link */
	struct epoll_event batch[LOOP_BATCH];
	int n_batch;
};

int loop_init(struct loop *l);
void loop_finish(struct loop *l);

/* Runs until loop_stop(); returns its code, or -errno. */
int loop_run(struct loop *l);
void loop_stop(struct loop *l, int exit_code);

void loop_source_init(struct loop_source *s, void (*fn)(struct loop_source *s, uint32_t events));
int loop_source_add(struct loop *l, struct loop_source *s, int fd, uint32_t events);
void loop_source_remove(struct loop *l, struct loop_source *s);
/*
 * For EPOLLET: what is so now is told again. To be called after an EAGAIN, so that one that came for another reason
 * than an empty or full descriptor is no wait for ever.
 */
int loop_source_rearm(struct loop *l, struct loop_source *s, uint32_t events);

void loop_timer_init(struct loop_timer *t, void (*fn)(struct loop_timer *t));
/* (Re)arms T. Constant time when timers of one length dominate. */
void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t after_usec);
void loop_timer_clear(struct loop_timer *t);
/* Microseconds until it runs; UINT64_MAX: it does not. */
uint64_t loop_timer_left(const struct loop_timer *t);

void loop_job_init(struct loop_job *j, void (*fn)(struct loop_job *j));
void loop_job_add(struct loop *l, struct loop_job *j); /* no-op when it waits already */
void loop_job_clear(struct loop_job *j);

uint64_t loop_now_usec(void);
