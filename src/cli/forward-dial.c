#include "forward-dial.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "cleanup.h"
#include "cli.h"
#include "control-client.h"
#include "fd.h"
#include "str.h"

#define REPLY_USEC (UINT64_C(1) * 1000000) /* for the rest of a reply that has begun */

static void dial_idle(struct forward_dial *d)
{
	loop_source_remove(d->dialer->loop, &d->guest_source);
	loop_timer_clear(&d->timer);
	d->client = fd_close(d->client);
	d->guest = fd_close(d->guest);
	d->len = 0;
}

static void dial_hang_up(struct forward_dial *d)
{
	loop_source_remove(d->dialer->loop, &d->control_source);
	d->control = fd_close(d->control);
}

static void dial_fail(struct forward_dial *d, const char *text)
{
	dial_idle(d);
	d->dialer->failed(text, d->dialer->user);
}

static void dial_done(struct forward_dial *d)
{
	int client, guest;

	loop_source_remove(d->dialer->loop, &d->guest_source);
	client = TAKE_FD(d->client);
	guest = TAKE_FD(d->guest);
	dial_idle(d);
	d->dialer->opened(client, guest, d->dialer->user);
}

/* ---- the agent's answer ---- */

/* One frame and not a byte more: raw bytes follow. 1: it is whole; 0: later; -errno. */
static int dial_read_answer(struct forward_dial *d)
{
	for (;;) {
		size_t want = AGENT_WIRE_HEADER;
		ssize_t n;

		if (d->len >= AGENT_WIRE_HEADER)
			want += agent_wire_payload_length(d->buf);
		if (want > sizeof d->buf)
			return -EPROTO;
		if (d->len == want)
			return 1;
		n = recv(d->guest, d->buf + d->len, want - d->len, MSG_DONTWAIT);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		if (n == 0)
			return -ECONNRESET;
		d->len += (size_t)n;
	}
}

static void dial_on_guest(struct loop_source *s, uint32_t events)
{
	struct forward_dial *d = CONTAINER_OF(s, struct forward_dial, guest_source);
	struct agent_wire_msg m;
	char text[200];
	int r = dial_read_answer(d);

	if (r == 0)
		return;
	if (r < 0) {
		dial_fail(d, strerror(-r));
		return;
	}
	if (agent_wire_decode(d->buf, d->len, &m) <= 0)
		m.type = 0;
	if (m.type == AGENT_WIRE_FORWARD_OK) {
		dial_done(d);
		return;
	}
	snprintf(text, sizeof text, "the agent broke the protocol");
	if (m.type == AGENT_WIRE_FAILED)
		str_escape(text, sizeof text, m.failed.text.s, m.failed.text.len, NULL);
	dial_fail(d, text);
}

static void dial_on_timer(struct loop_timer *t)
{
	dial_fail(CONTAINER_OF(t, struct forward_dial, timer), "no answer from the guest");
}

static int dial_ask_guest(struct forward_dial *d)
{
	uint8_t frame[AGENT_WIRE_HEADER + AGENT_WIRE_PATH_MAX + 64];
	ssize_t n = agent_wire_encode(d->dialer->target, frame, sizeof frame);

	/* the first bytes on this connection but for AUTH: there is room */
	if (n < 0 || send(d->guest, frame, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
		return -EPIPE;
	loop_timer_set(d->dialer->loop, &d->timer, FORWARD_USEC);
	return loop_source_add(d->dialer->loop, &d->guest_source, d->guest, EPOLLIN);
}

/* ---- the supervisor's ---- */

static bool dial_is_first(const struct forward_dial *d)
{
	return d == &d->dialer->dials[0];
}

static bool dial_is_raw(const struct forward_dial *d)
{
	return d->dialer->target->forward.kind == AGENT_FORWARD_VSOCK;
}

static void dial_on_control(struct loop_source *s, uint32_t events)
{
	struct forward_dial *d = CONTAINER_OF(s, struct forward_dial, control_source);
	struct control_failure f = { 0 };
	char text[200];
	int r;

	r = d->client < 0 ? -ECONNRESET
			  : control_client_end(d->control, REPLY_USEC, NULL, &d->guest, &f);
	snprintf(text, sizeof text, "%s", str_or(f.message, strerror(r < 0 ? -r : EPROTO)));
	control_failure_finish(&f);
	if (r == -ECONNRESET) {
		dial_hang_up(d);
		if (dial_is_first(d)) {
			d->dialer->ended(d->dialer->user);
			return;
		}
	}
	if (d->client < 0)
		return;
	if (d->guest < 0)
		dial_fail(d, text);
	else if (dial_is_raw(d))
		dial_done(d);
	else if (dial_ask_guest(d) < 0)
		dial_fail(d, "the connection to the guest ended");
}

static int dial_connect(struct forward_dial *d)
{
	int r;

	if (d->control >= 0)
		return 0;
	d->control = cli_connect(d->dialer->vm_name);
	if (d->control < 0)
		return d->control;
	r = loop_source_add(d->dialer->loop, &d->control_source, d->control, EPOLLIN | EPOLLRDHUP);
	if (r < 0)
		d->control = fd_close(d->control);
	return r;
}

static int dial_ask(struct forward_dial *d)
{
	struct json_object *p = NULL;
	int r = dial_connect(d);

	if (r < 0)
		return r;
	if (dial_is_raw(d)) {
		p = json_object_new_object();
		json_object_object_add(
			p, "port", json_object_new_int64(d->dialer->target->forward.port));
	}
	return control_client_begin(
		d->control, dial_is_raw(d) ? "io.uvms.VM.OpenPort" : "io.uvms.VM.OpenAgent", p);
}

int forward_dial_init(struct forward_dialer *dialer)
{
	for (size_t i = 0; i < FORWARD_DIALS; i++) {
		struct forward_dial *d = &dialer->dials[i];

		*d = (struct forward_dial){
			.dialer = dialer, .control = -EBADF, .client = -EBADF, .guest = -EBADF
		};
		loop_source_init(&d->control_source, dial_on_control);
		loop_source_init(&d->guest_source, dial_on_guest);
		loop_timer_init(&d->timer, dial_on_timer);
	}
	return dial_connect(&dialer->dials[0]);
}

void forward_dial_finish(struct forward_dialer *dialer)
{
	for (size_t i = 0; i < FORWARD_DIALS; i++) {
		dial_idle(&dialer->dials[i]);
		dial_hang_up(&dialer->dials[i]);
	}
}

size_t forward_dial_busy(const struct forward_dialer *dialer)
{
	size_t n = 0;

	for (size_t i = 0; i < FORWARD_DIALS; i++)
		n += dialer->dials[i].client >= 0;
	return n;
}

static struct forward_dial *dialer_free_one(struct forward_dialer *dialer)
{
	size_t i = 0;

	while (dialer->dials[i].client >= 0)
		i++;
	return &dialer->dials[i];
}

void forward_dial_start_consume(struct forward_dialer *dialer, int client)
{
	struct forward_dial *d = dialer_free_one(dialer);
	int r;

	d->client = client;
	r = dial_ask(d);
	if (r < 0) {
		dial_hang_up(d);
		dial_fail(d, strerror(-r));
	}
}
