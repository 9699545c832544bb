/*
 * uvms-broker NAME N: see uvms-broker(8). Descriptor 3 is the channel to the supervisor, 4 and up are N listening sockets,
 * one for each service that the guest may call.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker-seccomp.h"
#include "broker-wire.h"
#include "cleanup.h"
#include "config.h"
#include "fd.h"
#include "fdpass.h"
#include "log.h"
#include "loop.h"
#include "parse.h"
#include "relay.h"
#include "sandbox.h"

#define BROKER_CHANNEL   3
#define BROKER_LISTENERS 4
#define BROKER_RULES_MAX 32
#define BROKER_CALLS_MAX 64                      /* that wait for the supervisor */
#define BROKER_CALL_USEC (UINT64_C(3) * 1000000) /* it gives up after 2 s */
#define BROKER_AGAIN     (UINT64_C(100) * 1000)  /* when there is no descriptor, or no room */

struct broker;

struct broker_listener {
	struct loop_source source;
	struct loop_timer again;
	struct broker *broker; /* borrowed */
	uint8_t rule;
};

/* Somebody has called, and does not know yet whether anybody answers. */
struct broker_call {
	struct broker *broker; /* borrowed */
	struct loop_timer timer;
	uint32_t id;
	int fd; /* owned; -EBADF: a free place */
};

struct broker {
	struct loop loop;
	struct relay relay;
	struct loop_source channel;
	struct broker_listener listeners[BROKER_RULES_MAX];
	struct broker_call calls[BROKER_CALLS_MAX];
	uint32_t last_id;
};

static struct broker broker;

/* calls */

static void call_end(struct broker_call *c)
{
	loop_timer_clear(&c->timer);
	c->fd = fd_close(c->fd);
}

static void call_on_timer(struct loop_timer *t)
{
	call_end(CONTAINER_OF(t, struct broker_call, timer));
}

static struct broker_call *call_find(struct broker *b, uint32_t id)
{
	for (size_t i = 0; i < ARRAY_SIZE(b->calls); i++) {
		if (b->calls[i].fd >= 0 && b->calls[i].id == id)
			return &b->calls[i];
	}
	return NULL;
}

static struct broker_call *call_room(struct broker *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(b->calls); i++) {
		if (b->calls[i].fd < 0)
			return &b->calls[i];
	}
	return NULL;
}

static int call_ask(struct broker *b, struct broker_call *c, uint8_t rule)
{
	uint8_t bytes[BROKER_WIRE_BYTES];

	c->id = ++b->last_id;
	broker_wire_put(bytes, &(struct broker_msg){ BROKER_DIAL, rule, c->id });
	return send(BROKER_CHANNEL, bytes, sizeof bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno
											  : 0;
}

/* listening */

static void listener_wait(struct broker_listener *l)
{
	loop_source_remove(&l->broker->loop, &l->source);
	loop_timer_set(&l->broker->loop, &l->again, BROKER_AGAIN);
}

static void listener_accept(struct loop_source *s, uint32_t events)
{
	struct broker_listener *l = CONTAINER_OF(s, struct broker_listener, source);
	struct broker *b = l->broker;
	struct broker_call *c = call_room(b);
	int fd;

	if (!c || b->relay.n_pairs >= RELAY_PAIRS_MAX) {
		listener_wait(l); /* who calls waits in the queue of the socket */
		return;
	}
	fd = accept4(l->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
		listener_wait(l);
	if (fd < 0)
		return;
	c->fd = fd;
	if (call_ask(b, c, l->rule) < 0)
		call_end(c);
	else
		loop_timer_set(&b->loop, &c->timer, BROKER_CALL_USEC);
}

static void listener_again(struct loop_timer *t)
{
	struct broker_listener *l = CONTAINER_OF(t, struct broker_listener, again);

	if (loop_source_add(&l->broker->loop, &l->source, BROKER_LISTENERS + l->rule, EPOLLIN) < 0)
		loop_stop(&l->broker->loop, 1);
}

/* the supervisor */

static void channel_take(struct broker *b, const struct broker_msg *m, int fd_consume)
{
	struct broker_call *c = call_find(b, m->id);

	if (!c) {
		fd_close(fd_consume); /* too late */
		return;
	}
	if (m->op == BROKER_DIALED && fd_set_nonblock(fd_consume, 1) >= 0)
		(void)relay_add_consume(&b->relay, TAKE_FD(c->fd), fd_consume);
	else
		fd_close(fd_consume);
	call_end(c);
}

static void channel_read(struct loop_source *s, uint32_t events)
{
	struct broker *b = CONTAINER_OF(s, struct broker, channel);
	uint8_t bytes[BROKER_WIRE_BYTES + 1];
	struct broker_msg m;
	size_t n_fds = 1;
	int fd = -EBADF;
	ssize_t n = fdpass_recv(BROKER_CHANNEL, bytes, sizeof bytes, &fd, &n_fds);

	if (n == -EAGAIN || n == -EINTR)
		return;
	if (n <= 0) {
		loop_stop(&b->loop, 0); /* the supervisor is gone, and with it all of the VM */
		return;
	}
	if (broker_wire_get(bytes, (size_t)n, n_fds, &m) < 0 || m.op == BROKER_DIAL) {
		log_error("the supervisor said nonsense");
		fd_close(fd);
		loop_stop(&b->loop, 1);
		return;
	}
	channel_take(b, &m, n_fds ? fd : -EBADF);
}

static void pair_ended(void *user)
{
}

static int broker_open(struct broker *b, size_t n_rules)
{
	int r = loop_init(&b->loop);

	for (size_t i = 0; i < ARRAY_SIZE(b->calls); i++) {
		b->calls[i] = (struct broker_call){ .broker = b, .fd = -EBADF };
		loop_timer_init(&b->calls[i].timer, call_on_timer);
	}
	if (r == 0)
		r = relay_init(&b->relay, &b->loop, pair_ended, NULL);
	loop_source_init(&b->channel, channel_read);
	if (r == 0)
		r = fd_set_nonblock(BROKER_CHANNEL, 1);
	if (r >= 0)
		r = loop_source_add(&b->loop, &b->channel, BROKER_CHANNEL, EPOLLIN);
	for (size_t i = 0; r == 0 && i < n_rules; i++) {
		struct broker_listener *l = &b->listeners[i];

		l->broker = b;
		l->rule = (uint8_t)i;
		loop_source_init(&l->source, listener_accept);
		loop_timer_init(&l->again, listener_again);
		r = loop_source_add(&b->loop, &l->source, BROKER_LISTENERS + (int)i, EPOLLIN);
	}
	return r;
}

static int broker_run(const char *name, size_t n_rules)
{
	int r;

	signal(SIGPIPE, SIG_IGN);
	(void)sandbox_want_fds(3 * RELAY_PAIRS_MAX);
	r = sandbox_drop_privileges();
	if (r >= 0)
		r = broker_open(&broker, n_rules);
	if (r < 0)
		return r;
	/* nothing that anybody sent has been looked at yet */
	if (UVMS_SANITIZED) /* a sanitizer makes calls of its own */
		log_warning("%s: no system call filter", name);
	else
		r = broker_seccomp_load();
	return r < 0 ? r : loop_run(&broker.loop);
}

int main(int argc, char **argv)
{
	uint32_t n_rules;
	int r;

	log_open("uvms-broker");
	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "--version") == 0)) {
		puts(argv[1][2] == 'h' ? "usage: uvms-broker NAME N  (started by uvms-supervisor; "
					 "uvms-broker(8))"
				       : "uvms-broker " UVMS_VERSION);
		return 0;
	}
	if (argc != 3 || parse_u32(argv[2], BROKER_RULES_MAX, &n_rules) < 0) {
		log_error("it takes the VM's name and the number of its services");
		return 2;
	}
	r = broker_run(argv[1], n_rules);
	if (r < 0)
		log_error("%s: %s", argv[1], strerror(-r));
	return r != 0;
}
