#include "guest-conn.h"

#include "cleanup.h"
#include "fd.h"
#include "guest-info.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/param.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define AUTH_MS    2000
#define REQUEST_MS 10000
#define LINGER_MS  2000

enum conn_state {
	CONN_AUTH,
	CONN_REQUEST,
	CONN_SESSION,
	CONN_FORWARD, /* connecting; afterwards the connection lives in the forward */
	CONN_ENDING,
};

struct guest_conn {
	struct guest_conn_set *set; /* borrowed */
	struct guest_frames frames;
	struct guest_timer timer;
	enum conn_state state;
	bool ends_vm;                  /* it had the MAIN session, which is over */
	bool hangup;                   /* the host closes for good */
	struct guest_session *session; /* borrowed from the set; see conn_session_over() */
	struct guest_forward *forward; /* owned until opened */
	LIST_ENTRY(guest_conn) link;   /* in guest_conn_set.conns, newest first */
};

static void conn_destroy(struct guest_conn *c)
{
	if (c->state == CONN_AUTH)
		c->set->n_unauthenticated--;
	c->set->n--;
	LIST_REMOVE(c, link);
	guest_timer_stop(&c->timer);
	guest_forward_destroy(c->forward);
	guest_frames_finish(&c->frames);
	if (c->ends_vm)
		c->set->main_over(c->set->user);
	free(c);
}

static void conn_timeout(struct guest_timer *t)
{
	conn_destroy(GUEST_CONTAINER(t, struct guest_conn, timer));
}

static void conn_end(struct guest_conn *c)
{
	c->state = CONN_ENDING;
	guest_frames_end(&c->frames);
	guest_timer_arm(&c->timer, c->set->loop, LINGER_MS, conn_timeout);
}

/* ---- sessions ---- */

/* The end of the VM waits for the connection's: what was sent last has to arrive. */
static void conn_session_over(struct guest_session *s, void *user)
{
	struct guest_conn *c = user;

	c->session = NULL;
	c->ends_vm = guest_session_is_main(s);
	guest_session_set_over(&c->set->sessions, s);
	conn_end(c);
}

static void conn_session_moved(struct guest_session *s, void *user)
{
	struct guest_conn *c = user;

	c->session = NULL;
	conn_destroy(c);
}

static struct guest_session_owner conn_owner(struct guest_conn *c)
{
	return (struct guest_session_owner){
		.over = conn_session_over, .moved = conn_session_moved, .user = c
	};
}

static int conn_exec(struct guest_conn *c, const struct agent_wire_msg *m)
{
	struct guest_session_owner owner = conn_owner(c);
	int r;

	r = guest_session_set_exec(&c->set->sessions, m, &c->frames, &owner, &c->session);
	if (r < 0) {
		c->ends_vm = r != -EEXIST && (m->exec.flags & AGENT_EXEC_MAIN);
		conn_end(c);
		return 0;
	}
	c->state = CONN_SESSION;
	return 0;
}

static int conn_attach(struct guest_conn *c, const struct agent_wire_msg *m)
{
	struct guest_session_owner owner = conn_owner(c);
	int r;

	r = guest_session_set_attach(&c->set->sessions, m, &c->frames, &owner, &c->session);
	if (r == -EBADMSG)
		return r;
	if (r < 0)
		conn_end(c);
	else
		c->state = CONN_SESSION;
	return 0;
}

/* ---- other requests ---- */

static void conn_forward_opened(void *user, int error)
{
	struct guest_conn *c = user;

	c->forward = NULL;
	if (error < 0)
		conn_end(c);
	else
		conn_destroy(c);
}

static int conn_forward(struct guest_conn *c, const struct agent_wire_msg *m)
{
	if (guest_forward_create(
		    m, &c->frames, &c->set->forwards, conn_forward_opened, c, &c->forward) < 0) {
		conn_end(c);
		return 0;
	}
	c->state = CONN_FORWARD;
	guest_frames_pause(&c->frames);
	return 0;
}

/* The connection is the child's then, and closed here. */
static int conn_copy(struct guest_conn *c, const struct agent_wire_msg *m)
{
	char text[64];
	int r = guest_copy_start(&c->set->copies, m, c->frames.fd, c->set->reaper);

	if (r == 0)
		return -ECONNRESET;
	if (r == -EAGAIN)
		snprintf(text, sizeof text, "too many copies: %d are at work", GUEST_COPY_MAX);
	else
		snprintf(text, sizeof text, "%s", strerror(-r));
	guest_frames_send(&c->frames, &(struct agent_wire_msg){ .type = AGENT_WIRE_FAILED,
					      .failed = { 1, (uint32_t)-r, wire_str_from(text) } });
	conn_end(c);
	return 0;
}

static int conn_info(struct guest_conn *c)
{
	char text[AGENT_WIRE_INFO_MAX];

	guest_info_text(text, sizeof text);
	guest_frames_send(&c->frames, &(struct agent_wire_msg){ .type = AGENT_WIRE_INFO_REPLY,
					      .info_reply = { wire_str_from(text) } });
	conn_end(c);
	return 0;
}

static int conn_request(struct guest_conn *c, const struct agent_wire_msg *m)
{
	guest_timer_stop(&c->timer);
	switch (m->type) {
	case AGENT_WIRE_EXEC: return conn_exec(c, m);
	case AGENT_WIRE_ATTACH: return conn_attach(c, m);
	case AGENT_WIRE_FORWARD: return conn_forward(c, m);
	case AGENT_WIRE_INFO: return conn_info(c);
	case AGENT_WIRE_COPY_GET:
	case AGENT_WIRE_COPY_PUT: return conn_copy(c, m);
	default: return -EBADMSG;
	}
}

/* ---- authentication ---- */

static bool secret_equal(const uint8_t *a, const uint8_t *b)
{
	volatile uint8_t diff = 0;

	for (size_t i = 0; i < AGENT_WIRE_SECRET; i++)
		diff |= a[i] ^ b[i];
	return diff == 0;
}

static int conn_auth(struct guest_conn *c, const struct agent_wire_msg *m)
{
	if (m->type != AGENT_WIRE_AUTH || !secret_equal(m->auth.secret, c->set->secret))
		return -EACCES;
	c->state = CONN_REQUEST;
	c->set->n_unauthenticated--;
	guest_timer_arm(&c->timer, c->set->loop, REQUEST_MS, conn_timeout);
	return guest_frames_send(&c->frames, &(struct agent_wire_msg){ .type = AGENT_WIRE_AUTH_OK,
						     .auth_ok = { AGENT_WIRE_VERSION } });
}

static int conn_message(struct guest_frames *f, const struct agent_wire_msg *m)
{
	struct guest_conn *c = GUEST_CONTAINER(f, struct guest_conn, frames);

	switch (c->state) {
	case CONN_AUTH: return conn_auth(c, m);
	case CONN_REQUEST: return conn_request(c, m);
	case CONN_SESSION:
		c->hangup = m->type == AGENT_WIRE_HANGUP;
		return c->hangup ? -ECONNRESET : guest_session_message(c->session, m);
	default: return -EBADMSG;
	}
}

static void conn_room(struct guest_frames *f)
{
	struct guest_conn *c = GUEST_CONTAINER(f, struct guest_conn, frames);

	if (c->session)
		guest_session_room(c->session);
}

static void conn_closed(struct guest_frames *f)
{
	struct guest_conn *c = GUEST_CONTAINER(f, struct guest_conn, frames);
	struct guest_conn_set *set = c->set;
	struct guest_session *s = TAKE_PTR(c->session);
	bool hangup = c->hangup;

	conn_destroy(c);
	if (s)
		guest_session_set_lost(&set->sessions, s, hangup);
}

/* ---- the listener ---- */

static void set_close_oldest(struct guest_conn_set *set)
{
	struct guest_conn *c, *oldest = NULL;

	LIST_FOREACH(c, &set->conns, link)
	if (c->state == CONN_AUTH)
		oldest = c;
	if (oldest)
		conn_destroy(oldest);
}

static void set_add(struct guest_conn_set *set, int fd_consume)
{
	struct guest_conn *c = calloc(1, sizeof *c);

	if (!c) {
		fd_close(fd_consume);
		return;
	}
	c->set = set;
	if (guest_frames_init(&c->frames, set->loop, fd_consume) < 0) {
		free(c);
		return;
	}
	c->frames.on_message = conn_message;
	c->frames.on_room = conn_room;
	c->frames.on_closed = conn_closed;
	guest_timer_arm(&c->timer, set->loop, AUTH_MS, conn_timeout);
	LIST_INSERT_HEAD(&set->conns, c, link);
	set->n++;
	set->n_unauthenticated++;
}

static void set_accept(struct guest_source *s, uint32_t events)
{
	struct guest_conn_set *set = GUEST_CONTAINER(s, struct guest_conn_set, listener);
	int fd = accept4(set->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return;
	if (set->n_unauthenticated >= GUEST_CONN_UNAUTHENTICATED_MAX)
		set_close_oldest(set);
	if (set->n >= GUEST_CONN_MAX)
		fd_close(fd);
	else
		set_add(set, fd);
}

static size_t set_forwards_max(void)
{
	struct rlimit lim = { 0 };
	size_t n;

	getrlimit(RLIMIT_NOFILE, &lim);
	n = lim.rlim_cur > GUEST_CONN_FDS ? (lim.rlim_cur - GUEST_CONN_FDS) / 2 : 0;
	return MIN(n, (size_t)GUEST_FORWARD_MAX);
}

int guest_conn_set_init(struct guest_conn_set *set, int listen_fd_consume)
{
	set->fd = listen_fd_consume;
	set->forwards.max = set_forwards_max();
	set->forwards.loop = set->sessions.loop = set->loop;
	set->sessions.reaper = set->reaper;
	LIST_INIT(&set->conns);
	guest_source_init(&set->listener, set->loop, set->fd, set_accept);
	guest_source_set(&set->listener, EPOLLIN);
	return 0;
}

static void conn_hold(struct guest_conn *c, bool hold)
{
	if (c->state != CONN_AUTH && c->state != CONN_REQUEST)
		return;
	if (hold) {
		guest_timer_stop(&c->timer);
		guest_frames_pause(&c->frames);
	} else {
		guest_timer_arm(&c->timer, c->set->loop,
			c->state == CONN_AUTH ? AUTH_MS : REQUEST_MS, conn_timeout);
		guest_frames_resume(&c->frames);
	}
}

void guest_conn_set_hold(struct guest_conn_set *set, bool hold)
{
	struct guest_conn *c, *next;

	if (set->held == hold)
		return;
	set->held = hold;
	guest_source_set(&set->listener, hold ? 0 : EPOLLIN);
	for (c = LIST_FIRST(&set->conns); c; c = next) {
		next = LIST_NEXT(c, link);
		conn_hold(c, hold);
	}
}

void guest_conn_set_finish(struct guest_conn_set *set)
{
	struct guest_conn *c;

	guest_source_stop(&set->listener);
	set->fd = fd_close(set->fd);
	guest_copy_set_finish(&set->copies);
	while ((c = LIST_FIRST(&set->conns)))
		conn_destroy(c);
	guest_session_set_finish(&set->sessions);
}
