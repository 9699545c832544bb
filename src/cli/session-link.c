#include "session-link.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "cleanup.h"
#include "cli.h"
#include "clock.h"
#include "control-client.h"
#include "fd.h"
#include "json-codec.h"

#define RETRY_USEC (UINT64_C(50) * 1000)
#define REPLY_USEC (UINT64_C(1) * 1000000) /* for the rest of a reply that has begun */

uint32_t session_link_version(struct json_object *reply)
{
	struct json_object *v;

	if (!reply || !json_object_object_get_ex(reply, "version", &v))
		return 1; /* a supervisor that does not say it is older than version 2 */
	return (uint32_t)json_object_get_int64(v);
}

void session_link_init(
	struct session_link *l, const char *vm_name, int fd_consume, uint32_t version)
{
	l->vm_name = vm_name;
	l->version = version;
	l->fd = fd_consume;
	l->control = -EBADF;
	l->is_first = true;
	l->asked = l->settled = false;
	l->lost_usec = l->next_usec = clock_usec(CLOCK_MONOTONIC);
	l->in_len = l->in_used = l->out_len = 0;
	l->text = "the guest or its connection ended";
}

/* ---- frames ---- */

static int link_flush(struct session_link *l)
{
	size_t at = 0;

	while (at < l->out_len) {
		ssize_t n = send(l->fd, l->out + at, l->out_len - at, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno != EAGAIN)
			return -errno;
		if (n < 0)
			break;
		at += (size_t)n;
	}
	l->out_len -= at;
	memmove(l->out, l->out + at, l->out_len);
	return 0;
}

int session_link_send(struct session_link *l, const struct agent_wire_msg *m)
{
	ssize_t n;

	if (l->fd < 0)
		return 0;
	n = agent_wire_encode(m, l->out + l->out_len, sizeof l->out - l->out_len);
	if (n < 0)
		return (int)n;
	l->out_len += (size_t)n;
	(void)link_flush(l); /* its end is seen by reading, where the last words are */
	return 0;
}

bool session_link_has_room(const struct session_link *l)
{
	return l->fd >= 0 && l->out_len < AGENT_WIRE_FRAME_MAX;
}

ssize_t session_link_next(struct session_link *l, struct agent_wire_msg *ret)
{
	ssize_t n = agent_wire_decode(l->in + l->in_used, l->in_len - l->in_used, ret);

	if (n > 0)
		l->in_used += (size_t)n;
	return n;
}

static enum session_link_news link_read(struct session_link *l)
{
	ssize_t n;

	l->in_len -= l->in_used;
	memmove(l->in, l->in + l->in_used, l->in_len);
	l->in_used = 0;
	n = recv(l->fd, l->in + l->in_len, sizeof l->in - l->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return SESSION_LINK_NOTHING;
	if (n <= 0) {
		session_link_drop(l);
		return SESSION_LINK_LOST;
	}
	l->in_len += (size_t)n;
	return SESSION_LINK_FRAMES;
}

/* ---- another connection ---- */

void session_link_drop(struct session_link *l)
{
	uint64_t now = clock_usec(CLOCK_MONOTONIC);

	l->fd = fd_close(l->fd);
	l->in_len = l->in_used = l->out_len = 0;
	if (l->settled || l->is_first)
		l->lost_usec = l->next_usec = now;
	else /* it went wrong a moment ago */
		l->next_usec = now + RETRY_USEC;
	l->settled = l->is_first = false;
}

void session_link_settle(struct session_link *l)
{
	l->settled = true;
	l->control = fd_close(l->control);
}

static enum session_link_news link_gone(struct session_link *l, const char *text)
{
	l->text = text;
	return SESSION_LINK_GONE;
}

/* Over a new control connection: if none is to be had, the supervisor is gone, and the VM with it. */
static void link_try_later(struct session_link *l)
{
	l->control = fd_close(l->control);
	l->next_usec = clock_usec(CLOCK_MONOTONIC) + RETRY_USEC;
}

static enum session_link_news link_ask(struct session_link *l)
{
	if (l->control < 0)
		l->control = cli_connect(l->vm_name);
	if (l->control == -ENOENT)
		return link_gone(l, "the VM ended");
	l->asked = l->control >= 0 &&
		   control_client_begin(l->control, "io.uvms.VM.OpenAgent", NULL) == 0;
	if (!l->asked)
		link_try_later(l);
	return SESSION_LINK_NOTHING;
}

/* The control connection has something to say, or has ended. */
static enum session_link_news link_answered(struct session_link *l)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct control_failure f = { 0 };
	int r;

	l->asked = false;
	r = control_client_end(l->control, REPLY_USEC, &reply, &l->fd, &f);
	control_failure_finish(&f);
	if (r < 0 || l->fd < 0) {
		link_try_later(l);
		return SESSION_LINK_NOTHING;
	}
	l->version = session_link_version(reply);
	return SESSION_LINK_OPENED;
}

struct pollfd session_link_poll(const struct session_link *l)
{
	bool full = l->out_len > SESSION_LINK_QUEUE_MAX / 2;

	if (l->fd < 0)
		return (struct pollfd){ .fd = l->asked ? l->control : -1, .events = POLLIN };
	return (struct pollfd){ .fd = l->fd,
		.events = (short)((full ? 0 : POLLIN) | (l->out_len > 0 ? POLLOUT : 0)) };
}

uint64_t session_link_deadline(const struct session_link *l)
{
	uint64_t last = l->lost_usec + SESSION_LINK_LOST_USEC;

	if (l->settled || l->is_first)
		return UINT64_MAX;
	return l->fd >= 0 || l->asked || l->next_usec > last ? last : l->next_usec;
}

enum session_link_news session_link_turn(struct session_link *l, short revents)
{
	uint64_t now = clock_usec(CLOCK_MONOTONIC);

	if (l->fd >= 0 && (revents & POLLOUT))
		(void)link_flush(l);
	if (l->fd >= 0 && (revents & (POLLIN | POLLHUP | POLLERR)))
		return link_read(l);
	if (!l->settled && !l->is_first && now >= l->lost_usec + SESSION_LINK_LOST_USEC)
		return link_gone(l, "the guest or its connection ended");
	if (l->fd >= 0)
		return SESSION_LINK_NOTHING;
	if (l->version < AGENT_WIRE_VERSION_ATTACH)
		return link_gone(l, "the guest or its connection ended");
	if (l->asked)
		return revents ? link_answered(l) : SESSION_LINK_NOTHING;
	return now >= l->next_usec ? link_ask(l) : SESSION_LINK_NOTHING;
}

void session_link_finish(struct session_link *l, bool hangup)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_HANGUP };

	if (hangup && l->version >= AGENT_WIRE_VERSION_ATTACH)
		(void)session_link_send(l, &m);
	l->fd = fd_close(l->fd);
	l->control = fd_close(l->control);
}
