#include "guest-home.h"

#include "cleanup.h"
#include "fd.h"
#include "guest-clock.h"
#include "guest-info.h"
#include "str.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/param.h>
#include <sys/socket.h>

#define RETRY_LOST_MS                                                                              \
	5 /* after a channel that stood: the device was replaced, and is there again */
#define RETRY_FIRST_MS 100
#define RETRY_MAX_MS   5000
#define WELCOME_MS     10000
#define END_MS         1000

static void home_lost(struct guest_home *h);

static int make_hello(struct agent_wire_msg *m, enum agent_wire_stage stage, const uint8_t *secret)
{
	*m = (struct agent_wire_msg){ .type = AGENT_WIRE_HELLO };
	m->hello.version = AGENT_WIRE_VERSION;
	m->hello.stage = (uint8_t)stage;
	memcpy(m->hello.secret, secret, AGENT_WIRE_SECRET);
	return guest_info_boot_id(m->hello.boot_id);
}

static void take_welcome(const struct agent_wire_msg *m)
{
	guest_clock_set(m->welcome.realtime_ns);
	guest_clock_add_entropy(m->welcome.seed, sizeof m->welcome.seed);
}

/* ---- the control channel ---- */

static void home_send_ready(struct guest_home *h)
{
	if (h->ready_state == 0)
		return;
	guest_home_send(h, &(struct agent_wire_msg){ .type = AGENT_WIRE_READY,
				   .ready = { h->ready_state, wire_str_from(h->ready_text) } });
}

static int home_welcome(struct guest_home *h, const struct agent_wire_msg *m)
{
	if (h->is_welcome)
		return -EBADMSG;
	h->is_welcome = true;
	h->welcome_usec = guest_loop_now_usec();
	h->retry_ms = 0;
	guest_timer_stop(&h->timer);
	if (!h->leave_clock)
		take_welcome(m);
	home_send_ready(h);
	h->welcomed(h->user);
	return 0;
}

static int home_done(struct guest_home *h, uint8_t request, int error)
{
	return guest_frames_send(&h->frames, &(struct agent_wire_msg){ .type = AGENT_WIRE_DONE,
						     .done = { request, (uint32_t)-error } });
}

void guest_home_answer(struct guest_home *h, uint8_t request, int error)
{
	guest_home_send(h, &(struct agent_wire_msg){
				   .type = AGENT_WIRE_DONE, .done = { request, (uint32_t)error } });
}

static int home_stop(struct guest_home *h, const struct agent_wire_msg *m)
{
	return home_done(h, m->type, h->stop(h->user, m->stop.mode, m->stop.deadline_ms));
}

static int home_freeze(struct guest_home *h)
{
	int r = h->freeze(h->user);

	return r < 0 ? home_done(h, AGENT_WIRE_FREEZE, r) : 0;
}

static int home_message(struct guest_frames *f, const struct agent_wire_msg *m)
{
	struct guest_home *h = GUEST_CONTAINER(f, struct guest_home, frames);

	if (m->type == AGENT_WIRE_WELCOME)
		return home_welcome(h, m);
	if (!h->is_welcome)
		return -EBADMSG;
	switch (m->type) {
	case AGENT_WIRE_STOP: return home_stop(h, m);
	case AGENT_WIRE_CLOCK:
		return home_done(
			h, m->type, h->leave_clock ? 0 : guest_clock_set(m->clock.realtime_ns));
	case AGENT_WIRE_ENTROPY:
		return home_done(h, m->type,
			h->leave_clock
				? 0
				: guest_clock_add_entropy(m->entropy.seed, sizeof m->entropy.seed));
	case AGENT_WIRE_NETWORK: h->network(h->user, &m->network); return 0;
	case AGENT_WIRE_MOUNT:
	case AGENT_WIRE_UNMOUNT: h->mount(h->user, m); return 0;
	case AGENT_WIRE_FREEZE: return home_freeze(h);
	case AGENT_WIRE_THAW: return home_done(h, m->type, h->thaw(h->user));
	case AGENT_WIRE_PING:
		return guest_frames_send(f, &(struct agent_wire_msg){ .type = AGENT_WIRE_PONG,
						    .ping = { m->ping.cookie } });
	default: return -EBADMSG;
	}
}

static void home_closed(struct guest_frames *f)
{
	home_lost(GUEST_CONTAINER(f, struct guest_home, frames));
}

/* ---- dialling ---- */

static void home_timeout(struct guest_timer *t)
{
	home_lost(GUEST_CONTAINER(t, struct guest_home, timer));
}

static int home_connected(struct guest_home *h)
{
	struct agent_wire_msg m;
	int r;

	r = make_hello(&m, AGENT_STAGE_AGENT, h->secret);
	if (r < 0)
		return r;
	r = guest_frames_init(&h->frames, h->loop, TAKE_FD(h->fd));
	if (r < 0)
		return r;
	h->frames.on_message = home_message;
	h->frames.on_closed = home_closed;
	h->connected = true;
	return guest_frames_send(&h->frames, &m);
}

static void home_dialled(struct guest_source *s, uint32_t events)
{
	struct guest_home *h = GUEST_CONTAINER(s, struct guest_home, dialling);
	socklen_t len = sizeof(int);
	int error = 0;

	getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &len);
	guest_source_stop(&h->dialling);
	if (error != 0 || home_connected(h) < 0)
		home_lost(h);
}

static void home_dial(struct guest_timer *t)
{
	struct guest_home *h = GUEST_CONTAINER(t, struct guest_home, timer);
	int fd = guest_transport_dial(h->transport);

	if (fd < 0) {
		home_lost(h);
		return;
	}
	h->fd = fd;
	guest_source_init(&h->dialling, h->loop, fd, home_dialled);
	guest_source_set(&h->dialling, EPOLLOUT);
	guest_timer_arm(&h->timer, h->loop, WELCOME_MS, home_timeout);
}

static void home_disconnect(struct guest_home *h)
{
	guest_timer_stop(&h->timer);
	guest_source_stop(&h->dialling);
	h->fd = fd_close(h->fd);
	if (h->connected)
		guest_frames_finish(&h->frames);
	h->connected = h->is_welcome = false;
}

static void home_lost(struct guest_home *h)
{
	bool stood = h->is_welcome;

	home_disconnect(h);
	if (h->is_ending) {
		h->closed(h->user);
		return;
	}
	if (stood) {
		h->lost_usec = guest_loop_now_usec();
		guest_timer_arm(&h->timer, h->loop, RETRY_LOST_MS, home_dial);
		return;
	}
	h->retry_ms = MIN(MAX(h->retry_ms * 2, (uint64_t)RETRY_FIRST_MS), (uint64_t)RETRY_MAX_MS);
	guest_timer_arm(&h->timer, h->loop, h->retry_ms, home_dial);
}

void guest_home_start(struct guest_home *h)
{
	h->fd = -EBADF;
	home_dial(&h->timer);
}

void guest_home_finish(struct guest_home *h)
{
	home_disconnect(h);
}

void guest_home_ready(struct guest_home *h, enum agent_wire_ready state, const char *text)
{
	h->ready_state = (uint8_t)state;
	snprintf(h->ready_text, sizeof h->ready_text, "%s", text);
	home_send_ready(h);
}

void guest_home_send(struct guest_home *h, const struct agent_wire_msg *m)
{
	if (h->is_welcome)
		guest_frames_send(&h->frames, m);
}

void guest_home_frozen(struct guest_home *h, int error)
{
	if (h->is_welcome)
		(void)home_done(h, AGENT_WIRE_FREEZE, error);
}

void guest_home_end(struct guest_home *h)
{
	h->is_ending = true;
	guest_timer_arm(&h->timer, h->loop, h->is_welcome ? END_MS : 0, home_timeout);
	if (h->is_welcome)
		guest_frames_end(&h->frames);
}

/* ---- stage INIT ---- */

static int poll_for(int fd, short events, int timeout_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	int r;

	do
		r = poll(&p, 1, timeout_ms);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

static int init_dial(const struct guest_transport *t, int timeout_ms)
{
	CLEANUP_CLOSE int fd = guest_transport_dial(t);
	socklen_t len = sizeof(int);
	int error = 0, r;

	if (fd < 0)
		return fd;
	r = poll_for(fd, POLLOUT, timeout_ms);
	if (r < 0)
		return r;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
		return -errno;
	return error ? -error : TAKE_FD(fd);
}

static int init_receive(int fd, int timeout_ms, struct agent_wire_msg *ret)
{
	uint8_t buf[256];
	size_t len = 0;

	while (len < sizeof buf) {
		ssize_t n;
		int r = poll_for(fd, POLLIN, timeout_ms);

		if (r < 0)
			return r;
		n = recv(fd, buf + len, sizeof buf - len, 0);
		if (n <= 0)
			return n < 0 ? -errno : -ECONNRESET;
		len += (size_t)n;
		n = agent_wire_decode(buf, len, ret);
		if (n != 0)
			return n < 0 ? (int)n : ret->type == AGENT_WIRE_WELCOME ? 0 : -EBADMSG;
	}
	return -EBADMSG;
}

int guest_home_call_init(const struct guest_transport *t, const uint8_t *secret, int timeout_ms)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct agent_wire_msg m;
	uint8_t buf[256];
	ssize_t n;
	int r;

	r = guest_transport_wait(t, timeout_ms);
	if (r == 0)
		r = make_hello(&m, AGENT_STAGE_INIT, secret);
	if (r < 0)
		return r;
	fd = init_dial(t, timeout_ms);
	if (fd < 0)
		return fd;
	n = agent_wire_encode(&m, buf, sizeof buf);
	r = n < 0 ? (int)n : fd_write_all(fd, buf, (size_t)n);
	if (r == 0)
		r = init_receive(fd, timeout_ms, &m);
	if (r == 0)
		take_welcome(&m);
	return r;
}
