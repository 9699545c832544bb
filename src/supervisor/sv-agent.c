#include "sv-agent.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "inbuf.h"
#include "log.h"
#include "sockun.h"
#include "str.h"
#include "sv-choose.h"
#include "sv-net.h"
#include "sv-vsockd.h"
#include "sv.h"

#define AGENT_HELLO_USEC (UINT64_C(10) * 1000000)
#define AGENT_OPEN_USEC  (UINT64_C(10) * 1000000)
#define AGENT_OK_USEC    (UINT64_C(2) * 1000000) /* without an OK, vsockd is asked whether it lives */
#define AGENT_AGAIN_USEC (UINT64_C(50) * 1000)   /* until the end of a vsockd is known for sure */
#define AGENT_HOME_USEC  (UINT64_C(2) * 1000000) /* for its call after vsockd was replaced */
#define AGENT_ASK_USEC   (UINT64_C(5) * 1000000)
#define AGENT_LINES_MAX  200
#define AGENT_ERRNO_MAX  4095 /* of Linux; what a guest says is bounded */
#define AGENT_SMALL      256
#define AGENT_TRIES      20
#define AGENT_OPENINGS   CONTROL_CONNECTIONS_MAX /* each of them has one call at a time */

/* One connection to v_1023, proven or not. */
struct agent_home {
	struct sv_agent *agent;      /* borrowed */
	struct agent_home *next;     /* in agent->homes */
	sd_event_source *io, *timer; /* owned */
	int fd;                      /* owned */
	bool proven;
	uint32_t version;  /* of the agent's wire, from HELLO */
	uint32_t n_links;  /* NETWORK was sent so often, and its DONE has not come */
	uint32_t n_mounts; /* the same of MOUNT and UNMOUNT */
	struct inbuf in;
};

/* One session on its way. */
struct agent_opening {
	struct sv_agent *agent;      /* borrowed */
	struct agent_opening *next;  /* in agent->openings */
	struct control_call *call;   /* borrowed; NULL: forgotten */
	sd_event_source *io, *timer; /* owned */
	int fd;                      /* owned; -EBADF: it waits for its second try */
	uint32_t port;
	bool connected;    /* the OK line was read */
	bool raw;          /* no AUTH: a port of the guest */
	bool asked;        /* vsockd was, after AGENT_OK_USEC */
	unsigned tries;    /* after the first */
	uint32_t version;  /* of the agent's wire, from AUTH_OK */
	uint32_t replaced; /* vsockd_replaced when it began */
	size_t len;
	uint8_t buf[64];
};

struct sv_agent {
	struct sv *sv;                  /* borrowed */
	sd_event_source *io;            /* owned: the listener */
	sd_event_source *ask;           /* owned: a stop request was sent, DONE is due */
	int fd;                         /* owned */
	struct agent_home *homes;       /* owned */
	struct agent_home *control;     /* borrowed from homes: the one that counts */
	struct agent_opening *openings; /* owned */
	size_t n_openings;
	uint32_t n_lines; /* logged because the guest wanted it */
	bool ready;
};

bool sv_agent_is_ready(const struct sv_agent *a)
{
	return a && a->ready;
}

static void home_free(struct agent_home *h)
{
	struct agent_home **p = &h->agent->homes;

	while (*p && *p != h)
		p = &(*p)->next;
	if (*p)
		*p = h->next;
	if (h->agent->control == h)
		h->agent->control = NULL;
	sd_event_source_disable_unref(h->io);
	sd_event_source_disable_unref(h->timer);
	fd_close(h->fd);
	inbuf_finish(&h->in);
	free(h);
}

/* In front of the others, with FD, which is taken over in any case; NULL: no memory. */
static struct agent_home *home_new_consume(struct sv_agent *a, int fd)
{
	struct agent_home *h = calloc(1, sizeof *h);

	if (!h) {
		fd_close(fd);
		return NULL;
	}
	*h = (struct agent_home){ .agent = a, .fd = fd, .next = a->homes };
	a->homes = h;
	return h;
}

static int home_send(struct agent_home *h, const struct agent_wire_msg *m)
{
	uint8_t buf[512];
	ssize_t n = agent_wire_encode(m, buf, sizeof buf);

	if (n < 0)
		return (int)n;
	/* small and rare: a peer that has not even room for it is not worth waiting for */
	return send(h->fd, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) == n ? 0 : -EPIPE;
}

static bool secrets_equal(const uint8_t *a, const uint8_t *b)
{
	uint8_t difference = 0;

	for (size_t i = 0; i < AGENT_WIRE_SECRET; i++)
		difference |= a[i] ^ b[i];
	return difference == 0;
}

/* The log of this process is a plain file: what a guest can make it say is counted, then dropped. */
static void agent_log(struct sv_agent *a, enum log_level level, const char *text)
{
	if (a->n_lines >= AGENT_LINES_MAX)
		return;
	a->n_lines++;
	log_at(level, "%s: agent: %s%s", a->sv->spec.name, text,
		a->n_lines == AGENT_LINES_MAX ? " (no more such lines follow)" : "");
}

static void agent_called(struct sv_agent *a)
{
	sv_snapshot_agent_called(a->sv);
	sv_link_agent_called(a->sv);
	sv_share_agent_called(a->sv);
}

/* -EPERM: close it. */
static int home_on_hello(struct agent_home *h, const struct agent_wire_msg *m)
{
	struct agent_wire_msg welcome = { .type = AGENT_WIRE_WELCOME,
		.welcome = { .version = AGENT_WIRE_VERSION } };
	struct sv_agent *a = h->agent;
	int r;

	if (h->proven || !secrets_equal(m->hello.secret, a->sv->secret)) {
		agent_log(a, LOG_LEVEL_WARNING, "a program in the guest called without the secret");
		return -EPERM;
	}
	h->proven = true;
	h->version = m->hello.version;
	sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
	welcome.welcome.realtime_ns = clock_usec(CLOCK_REALTIME) * 1000;
	if (getrandom(welcome.welcome.seed, AGENT_WIRE_SEED, 0) != AGENT_WIRE_SEED)
		return -EIO;
	if (m->hello.stage == AGENT_STAGE_AGENT) {
		if (a->control)
			home_free(a->control);
		a->control = h;
	}
	log_debug("%s: the agent called (stage %u)", a->sv->spec.name, m->hello.stage);
	r = home_send(h, &welcome);
	if (r == 0 && a->control == h)
		agent_called(a);
	return r;
}

static int home_on_ready(struct agent_home *h, const struct agent_wire_msg *m)
{
	static const char *const words[] = {
		[AGENT_READY_COMMAND] = "command",
		[AGENT_READY_RUNNING] = "running",
		[AGENT_READY_DEGRADED] = "degraded",
	};
	struct vm_status *s = &h->agent->sv->status;
	char units[2 * AGENT_WIRE_TEXT_MAX];

	str_escape(units, sizeof units, m->ready.text.s, m->ready.text.len, "\n");
	if (str_set(&s->ready, words[m->ready.state]) < 0 ||
		str_set(&s->failed_units, *units ? units : NULL) < 0)
		return -ENOMEM;
	h->agent->ready = true;
	sv_happen(h->agent->sv, SV_AGENT_READY, NULL);
	return 0;
}

/* Each NETWORK is answered; the last answer counts, as the last one overtakes those before it. */
static void home_on_link(struct agent_home *h, uint32_t error)
{
	char text[64];

	if (h->n_links == 0 || --h->n_links > 0)
		return;
	error = MIN(error, (uint32_t)AGENT_ERRNO_MAX);
	snprintf(text, sizeof text, "its network: error %u", error);
	if (error)
		agent_log(h->agent, LOG_LEVEL_WARNING, text);
	sv_link_told(h->agent->sv, (int)error);
}

static void home_on_mount(struct agent_home *h, uint32_t error)
{
	if (h->n_mounts > 0 && --h->n_mounts == 0)
		sv_share_told(h->agent->sv, (int)MIN(error, (uint32_t)AGENT_ERRNO_MAX));
}

static int home_on_done(struct agent_home *h, const struct agent_wire_msg *m)
{
	if (m->done.request == AGENT_WIRE_MOUNT || m->done.request == AGENT_WIRE_UNMOUNT)
		home_on_mount(h, m->done.error);
	if (m->done.request == AGENT_WIRE_NETWORK)
		home_on_link(h, m->done.error);
	if (m->done.request == AGENT_WIRE_FREEZE || m->done.request == AGENT_WIRE_THAW)
		sv_snapshot_told(h->agent->sv, m->done.request == AGENT_WIRE_FREEZE,
			-(int)MIN(m->done.error, (uint32_t)AGENT_ERRNO_MAX));
	if (m->done.request != AGENT_WIRE_STOP)
		return 0;
	sd_event_source_set_enabled(h->agent->ask, SD_EVENT_OFF);
	/* it has been asked before, by way of a vsockd that is no more */
	if (m->done.error && m->done.error != EALREADY)
		sv_happen(h->agent->sv, SV_AGENT_REFUSED, NULL);
	return 0;
}

static void home_on_main_exit(struct agent_home *h, const struct agent_wire_msg *m)
{
	struct vm_status *s = &h->agent->sv->status;
	bool exited = m->exit.kind == AGENT_EXITED;

	s->exit_code = exited ? m->exit.code : 128 + m->exit.code;
	(void)str_set(&s->exit_source, exited ? "cmd" : "signal");
	sv_status_save(h->agent->sv);
}

/* -errno: close the connection. */
static int home_on_message(struct agent_home *h, const struct agent_wire_msg *m)
{
	char text[1024];

	if (m->type == AGENT_WIRE_HELLO)
		return home_on_hello(h, m);
	if (!h->proven || h != h->agent->control)
		return -EPROTO;
	switch (m->type) {
	case AGENT_WIRE_READY: return home_on_ready(h, m);
	case AGENT_WIRE_DONE: return home_on_done(h, m);
	case AGENT_WIRE_PONG: return 0;
	case AGENT_WIRE_MAIN_EXIT: home_on_main_exit(h, m); return 0;
	case AGENT_WIRE_LOG:
		str_escape(text, sizeof text, m->log.text.s, m->log.text.len, NULL);
		agent_log(h->agent, LOG_LEVEL_INFO, text);
		return 0;
	default: return -EPROTO;
	}
}

static int home_take_messages(struct agent_home *h)
{
	struct sv_agent *a = h->agent;

	for (;;) {
		struct agent_wire_msg m;
		ssize_t n = agent_wire_decode(h->in.data, h->in.len, &m);
		int r;

		if (n <= 0)
			return (int)n;
		r = home_on_message(h, &m);
		if (r < 0)
			return r;
		if (a->sv->finished)
			return 0;
		inbuf_take(&h->in, (size_t)n);
	}
}

static int home_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct agent_home *h = userdata;
	/* a HELLO is small: until it came, nothing large is waited for */
	ssize_t n = inbuf_read(&h->in, fd, h->proven ? AGENT_WIRE_FRAME_MAX : AGENT_SMALL);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n <= 0 || home_take_messages(h) < 0)
		home_free(h);
	return 0;
}

static int home_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	home_free(userdata);
	return 0;
}

static size_t agent_strangers(const struct sv_agent *a)
{
	size_t n = 0;

	for (struct agent_home *h = a->homes; h; h = h->next)
		n += !h->proven;
	return n;
}

static int agent_on_listen(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv_agent *a = userdata;
	CLEANUP_CLOSE int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct agent_home *h;

	if (peer < 0 || agent_strangers(a) >= SV_AGENT_STRANGERS)
		return 0;
	h = home_new_consume(a, TAKE_FD(peer));
	if (!h)
		return 0;
	if (sd_event_add_io(a->sv->event, &h->io, h->fd, EPOLLIN, home_on_io, h) < 0 ||
		sd_event_add_time_relative(a->sv->event, &h->timer, CLOCK_MONOTONIC,
			AGENT_HELLO_USEC, 0, home_on_timer, h) < 0)
		home_free(h);
	return 0;
}

static int agent_on_ask_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv_agent *a = userdata;

	sv_happen(a->sv, SV_AGENT_REFUSED, NULL);
	return 0;
}

int sv_agent_create_consume(struct sv *sv, int listen_fd, struct sv_agent **ret)
{
	struct sv_agent *a = calloc(1, sizeof *a);
	int r;

	if (!a) {
		close(listen_fd);
		return -ENOMEM;
	}
	a->sv = sv;
	a->fd = listen_fd;
	r = sd_event_add_io(sv->event, &a->io, listen_fd, EPOLLIN, agent_on_listen, a);
	if (r >= 0)
		r = control_server_pace(a->io);
	if (r >= 0)
		r = sd_event_add_time_relative(sv->event, &a->ask, CLOCK_MONOTONIC, AGENT_ASK_USEC,
			0, agent_on_ask_timer, a);
	if (r >= 0)
		r = sd_event_source_set_enabled(a->ask, SD_EVENT_OFF);
	if (r < 0) {
		sv_agent_destroy(a);
		return r;
	}
	*ret = a;
	return 0;
}

int sv_agent_stop(struct sv_agent *a, uint64_t deadline_usec)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_STOP,
		.stop = { .mode = AGENT_STOP_POWEROFF,
			.deadline_ms = (uint32_t)(deadline_usec / 1000 > UINT32_MAX / 2
							  ? UINT32_MAX / 2
							  : deadline_usec / 1000) } };

	if (a->control && home_send(a->control, &m) < 0) {
		/* its vsockd died a moment ago; not freed, as we may have been called by it */
		shutdown(a->control->fd, SHUT_RDWR);
		a->control = NULL;
	}
	if (!a->control && !a->ready)
		return -ENOTCONN;
	/* without a channel: it calls again in a moment, and is asked then */
	sd_event_source_set_time_relative(a->ask, a->control ? AGENT_ASK_USEC : AGENT_HOME_USEC);
	return sd_event_source_set_enabled(a->ask, SD_EVENT_ONESHOT);
}

int sv_agent_renew(struct sv_agent *a)
{
	struct agent_wire_msg clock = { .type = AGENT_WIRE_CLOCK },
			      entropy = { .type = AGENT_WIRE_ENTROPY };
	int r;

	if (!a->control)
		return -ENOTCONN;
	if (getrandom(entropy.entropy.seed, sizeof entropy.entropy.seed, 0) !=
		sizeof entropy.entropy.seed)
		return -EIO;
	clock.clock.realtime_ns = clock_usec(CLOCK_REALTIME) * 1000;
	r = home_send(a->control, &clock);
	return r < 0 ? r : home_send(a->control, &entropy);
}

int sv_agent_can(const struct sv_agent *a, uint32_t version)
{
	if (!a || !a->control)
		return -ENOTCONN;
	return a->control->version < version ? -EOPNOTSUPP : 0;
}

int sv_agent_mount(struct sv_agent *a, const struct agent_wire_msg *m)
{
	int r = sv_agent_can(a, AGENT_WIRE_VERSION_MOUNT);

	if (r == 0)
		r = home_send(a->control, m);
	if (r == 0)
		a->control->n_mounts++;
	return r;
}

int sv_agent_link(struct sv_agent *a)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_NETWORK };
	struct boot_desc d = { 0 };
	int r;

	if (!a->control)
		return -ENOTCONN;
	sv_net_describe(a->sv, &d);
	m.network = d.network;
	r = home_send(a->control, &m);
	if (r < 0)
		agent_log(a, LOG_LEVEL_WARNING, "it was not told of its network");
	else
		a->control->n_links++;
	return r;
}

int sv_agent_hold(struct sv_agent *a, bool hold)
{
	const struct agent_wire_msg m = { .type = hold ? AGENT_WIRE_FREEZE : AGENT_WIRE_THAW };
	int r = sv_agent_can(a, AGENT_WIRE_VERSION_FREEZE);

	return r < 0 ? r : home_send(a->control, &m);
}

static void opening_free(struct agent_opening *o)
{
	struct agent_opening **p = &o->agent->openings;

	while (*p && *p != o)
		p = &(*p)->next;
	if (*p) {
		*p = o->next;
		o->agent->n_openings--;
	}
	sd_event_source_disable_unref(o->io);
	sd_event_source_disable_unref(o->timer);
	fd_close(o->fd);
	free(o);
}

static void opening_fail(struct agent_opening *o, int error, const char *cause)
{
	if (o->call)
		control_call_error(o->call, error,
			control_error_words(o->raw ? "the guest's port cannot be reached"
						   : "the agent in the guest cannot be reached",
				cause, NULL));
	opening_free(o);
}

static void opening_succeed(struct agent_opening *o)
{
	struct json_object *reply = NULL;

	if (o->call && !o->raw) {
		reply = json_object_new_object();
		json_object_object_add(reply, "version", json_object_new_int64(o->version));
	}
	if (o->call)
		control_call_reply(o->call, reply, o->fd);
	opening_free(o);
}

/*
 * The line and, for the agent, AUTH behind it in one piece: our own device keeps what comes before its
 * answer (uvms-vsockd(8)), and a round trip is saved. Returns the length.
 */
static ssize_t opening_compose(
	const struct agent_opening *o, uint32_t port, uint8_t *buf, size_t size)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_AUTH,
		.auth = { .version = AGENT_WIRE_VERSION } };
	int line = snprintf((char *)buf, size, "CONNECT %u\n", port);
	ssize_t n;

	if (o->raw)
		return line;
	memcpy(m.auth.secret, o->agent->sv->secret, AGENT_WIRE_SECRET);
	n = agent_wire_encode(&m, buf + line, size - (size_t)line);
	return n < 0 ? n : line + n;
}

/* 1: the line was read, 0: more is needed. Byte by byte: what follows belongs to the caller. */
static int opening_read_line(struct agent_opening *o)
{
	while (o->len < 32) {
		ssize_t n = read(o->fd, o->buf + o->len, 1);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (n == 0)
			return -ECONNREFUSED;
		if (o->buf[o->len++] != '\n')
			continue;
		return o->len > 3 && memcmp(o->buf, "OK ", 3) == 0 ? 1 : -EPROTO;
	}
	return -EPROTO;
}

/* 1: AUTH_OK was read, 0: more is needed. */
static int opening_read_auth(struct agent_opening *o)
{
	struct agent_wire_msg m;
	ssize_t n;

	/* AUTH_OK is 12 bytes; never read beyond it */
	n = read(o->fd, o->buf + o->len, AGENT_WIRE_HEADER + 4 - o->len);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNREFUSED;
	o->len += (size_t)n;
	n = agent_wire_decode(o->buf, o->len, &m);
	if (n < 0 || (n > 0 && m.type != AGENT_WIRE_AUTH_OK))
		return -EPROTO;
	if (n > 0)
		o->version = m.auth_ok.version;
	return n > 0;
}

static int opening_step(struct agent_opening *o)
{
	int r;

	if (!o->connected) {
		r = opening_read_line(o);
		if (r <= 0)
			return r;
		o->connected = true;
		o->len = 0;
		return o->raw;
	}
	return opening_read_auth(o);
}

/* 1: it is tried once more, in a moment: perhaps it was vsockd that ended. */
static int opening_wait_again(struct agent_opening *o)
{
	if (o->raw || o->tries >= AGENT_TRIES)
		return 0;
	o->tries++;
	o->io = sd_event_source_disable_unref(o->io);
	o->fd = fd_close(o->fd);
	sd_event_source_set_time_relative(o->timer, AGENT_AGAIN_USEC);
	return sd_event_source_set_enabled(o->timer, SD_EVENT_ONESHOT) >= 0;
}

static int opening_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct agent_opening *o = userdata;
	int r = opening_step(o);

	if (r > 0)
		opening_succeed(o);
	else if (r < 0 && !opening_wait_again(o))
		opening_fail(o, -ECONNREFUSED,
			r == -ECONNREFUSED ? "nothing listens there" : strerror(-r));
	return 0;
}

static int opening_start(struct agent_opening *o);

/* A vsockd that is new may still be resetting as many connections as it can have. */
static bool opening_may_try(const struct agent_opening *o)
{
	const struct sv *sv = o->agent->sv;

	return sv->status.vsockd_replaced != o->replaced ||
	       (sv->status.vsockd_replaced > 0 && sv_vsockd_is_young(sv));
}

static void opening_try_again(struct agent_opening *o)
{
	int r = -ECONNREFUSED;

	if (opening_may_try(o)) {
		o->timer = sd_event_source_disable_unref(o->timer);
		o->connected = false;
		o->len = 0;
		r = opening_start(o);
	}
	if (r < 0)
		opening_fail(o, -ECONNREFUSED, "nothing listens there");
}

static int opening_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct agent_opening *o = userdata;

	if (o->fd < 0) {
		opening_try_again(o);
	} else if (!o->asked) {
		o->asked = true;
		if (!o->connected)
			sv_vsockd_ping(o->agent->sv);
		sd_event_source_set_time_relative(s, AGENT_OPEN_USEC - AGENT_OK_USEC);
		sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	} else {
		opening_fail(o, -ETIMEDOUT, "no answer within 10 s");
	}
	return 0;
}

/* Who made the hybrid socket: vsockd got ours, a VMM brings its own. */
static uid_t agent_vsock_owner(const struct sv *sv)
{
	return sv_choose_vsockd(sv) ? geteuid() : sv->status.uid;
}

static int opening_say(struct agent_opening *o)
{
	uint8_t buf[128];
	ssize_t len = opening_compose(o, o->port, buf, sizeof buf);

	if (len < 0)
		return (int)len;
	return send(o->fd, buf, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) == len ? 0 : -EPIPE;
}

static int opening_start(struct agent_opening *o)
{
	struct sv *sv = o->agent->sv;
	int r;

	r = sd_event_add_time_relative(
		sv->event, &o->timer, CLOCK_MONOTONIC, AGENT_OK_USEC, 0, opening_on_timer, o);
	if (r < 0)
		return r;
	o->fd = sockun_connect_owned(sv->vsock_fd, VMM_VSOCK_SOCKET, agent_vsock_owner(sv));
	if (o->fd < 0)
		return o->fd;
	r = opening_say(o);
	if (r == -EPIPE && opening_wait_again(o))
		return 0; /* it ended between the two */
	if (r < 0)
		return r;
	return sd_event_add_io(sv->event, &o->io, o->fd, EPOLLIN, opening_on_io, o);
}

void sv_agent_open(struct sv_agent *a, struct control_call *call, uint32_t port)
{
	struct agent_opening *o;
	int r;

	o = a->n_openings < AGENT_OPENINGS ? calloc(1, sizeof *o) : NULL;
	if (!o) {
		control_call_error(call, -EBUSY,
			control_error_words(
				"too many sessions are being opened", NULL, "try again"));
		return;
	}
	*o = (struct agent_opening){ .agent = a,
		.call = call,
		.fd = -EBADF,
		.port = port ? port : AGENT_PORT,
		.raw = port != 0,
		.replaced = a->sv->status.vsockd_replaced,
		.next = a->openings };
	a->openings = o;
	a->n_openings++;
	r = opening_start(o);
	if (r < 0)
		opening_fail(o, -ECONNREFUSED, strerror(-r));
}

void sv_agent_forget(struct sv_agent *a, struct control_call *call)
{
	for (struct agent_opening *o = a ? a->openings : NULL; o; o = o->next) {
		if (o->call == call)
			o->call = NULL;
	}
}

static bool agent_is_armed(sd_event_source *s)
{
	int enabled;

	return sd_event_source_get_enabled(s, &enabled) >= 0 && enabled != SD_EVENT_OFF;
}

int sv_agent_save(const struct sv_agent *a, struct sv_agent_saved *ret)
{
	if (a->openings || agent_is_armed(a->ask))
		return -EBUSY;
	*ret = (struct sv_agent_saved){ .fd = a->fd, .ready = a->ready, .n_lines = a->n_lines };
	for (struct agent_home *h = a->homes; h; h = h->next) {
		struct sv_agent_home_saved *s = &ret->homes[ret->n_homes];

		if (ret->n_homes++ == SV_AGENT_HOMES_MAX)
			return -E2BIG;
		*s = (struct sv_agent_home_saved){ .fd = h->fd,
			.proven = h->proven,
			.control = h == a->control,
			.version = h->version,
			.pending = h->in.data,
			.pending_len = h->in.len };
		if (agent_is_armed(h->timer))
			(void)sd_event_source_get_time(h->timer, &s->timeout_usec);
	}
	return 0;
}

static int home_resume(struct sv_agent *a, const struct sv_agent_home_saved *s)
{
	struct agent_home *h;
	int r;

	if (s->pending_len > AGENT_WIRE_FRAME_MAX)
		return -EBADMSG;
	h = home_new_consume(a, s->fd);
	if (!h)
		return -ENOMEM;
	h->proven = s->proven;
	h->version = s->version;
	r = inbuf_put(&h->in, s->pending, s->pending_len);
	if (r < 0)
		return r;
	if (s->control)
		a->control = h;
	r = sd_event_add_io(a->sv->event, &h->io, h->fd, EPOLLIN, home_on_io, h);
	if (r >= 0)
		r = sd_event_add_time(a->sv->event, &h->timer, CLOCK_MONOTONIC, s->timeout_usec, 0,
			home_on_timer, h);
	if (r >= 0 && s->timeout_usec == 0)
		r = sd_event_source_set_enabled(h->timer, SD_EVENT_OFF);
	return r;
}

int sv_agent_resume(struct sv *sv, const struct sv_agent_saved *saved, struct sv_agent **ret)
{
	struct sv_agent *a;
	int r = sv_agent_create_consume(sv, saved->fd, &a);

	if (r < 0)
		return r;
	a->ready = saved->ready;
	a->n_lines = saved->n_lines;
	/* from the end, since each is put in front */
	for (size_t i = saved->n_homes; r >= 0 && i > 0; i--)
		r = home_resume(a, &saved->homes[i - 1]);
	if (r < 0) {
		sv_agent_destroy(a);
		return r;
	}
	*ret = a;
	return 0;
}

void sv_agent_destroy(struct sv_agent *a)
{
	if (!a)
		return;
	while (a->openings)
		opening_fail(a->openings, -ESHUTDOWN, "the VM ended");
	while (a->homes)
		home_free(a->homes);
	sd_event_source_disable_unref(a->io);
	sd_event_source_disable_unref(a->ask);
	fd_close(a->fd);
	free(a);
}
