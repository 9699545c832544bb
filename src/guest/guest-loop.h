/*
 * The guest's event loop: epoll, one event at a time, so that a handler may destroy any source or
 * timer, its own included (it then returns without touching it). A source with no events is taken
 * out of epoll: a hang-up that nobody can act on yet must not spin.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/queue.h>

struct guest_timer {
	void (*fn)(struct guest_timer *t); /* NULL while not armed */
	uint64_t at_usec;                  /* CLOCK_MONOTONIC */
	LIST_ENTRY(guest_timer) link;      /* in guest_loop.timers */
};

struct guest_source {
	void (*fn)(struct guest_source *s, uint32_t events);
	struct guest_loop *loop; /* borrowed */
	int fd;                  /* borrowed */
	uint32_t events;
};

struct guest_loop {
	int epoll_fd; /* owned */
	bool quit;
	LIST_HEAD(, guest_timer) timers;
};

int guest_loop_init(struct guest_loop *l);
void guest_loop_finish(struct guest_loop *l);
int guest_loop_run(struct guest_loop *l); /* until quit */

/* Sets up S without events; after it guest_source_set() and guest_source_stop() may be called. */
void guest_source_init(struct guest_source *s, struct guest_loop *l, int fd,
	void (*fn)(struct guest_source *s, uint32_t events));
void guest_source_set(struct guest_source *s, uint32_t events);
void guest_source_stop(struct guest_source *s); /* before the descriptor is closed */

void guest_timer_arm(struct guest_timer *t, struct guest_loop *l, uint64_t delay_ms,
	void (*fn)(struct guest_timer *t));
void guest_timer_stop(struct guest_timer *t);

uint64_t guest_loop_now_usec(void);

#define GUEST_CONTAINER(p, type, member) ((type *)(void *)((char *)(p)-offsetof(type, member)))
