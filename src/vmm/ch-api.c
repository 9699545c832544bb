#include "ch-api.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"
#include "http-wire.h"
#include "json-codec.h"
#include "sockun.h"
#include "str.h"

#define CH_API_READ_BYTES 4096
#define CH_API_MAX_BYTES  (2 * HTTP_WIRE_HEAD_MAX + HTTP_WIRE_REPLY_MAX)
#define CH_API_TEXT_MAX   2048 /* of an error, for people */

struct ch_api {
	sd_event *event;             /* borrowed */
	sd_event_source *io, *timer; /* owned */
	sd_event_source *start;      /* owned: the next call begins from the loop */
	ch_api_handler handler;
	void *userdata;
	int socket_fd; /* owned: O_PATH */
	int fd;        /* owned: the connection; -EBADF: none */

	struct ch_call queue[CH_API_QUEUE_MAX]; /* the first one is under way when BUSY */
	size_t n_queue;
	bool busy;
	bool kept; /* the connection has served a call before this one, and this one has not moved to another */
	char *out; /* owned: the request */
	size_t out_len, out_done;
	char *in; /* owned: the reply */
	size_t in_len, in_size;
};

static void api_disconnect(struct ch_api *a)
{
	a->io = sd_event_source_disable_unref(a->io);
	a->fd = fd_close(a->fd);
	a->kept = false;
	free(TAKE_PTR(a->in));
	a->in_len = a->in_size = 0;
}

static int api_schedule(struct ch_api *a)
{
	return sd_event_source_set_enabled(
		a->start, a->n_queue > 0 ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

/* The handler may destroy A. */
static void api_end(struct ch_api *a, enum ch_api_end end, const char *text, size_t len)
{
	struct ch_call call = a->queue[0];

	sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
	free(TAKE_PTR(a->out));
	a->busy = false;
	a->kept = true;
	a->n_queue--;
	memmove(a->queue, a->queue + 1, a->n_queue * sizeof *a->queue);
	if (end >= CH_API_LOST)
		api_disconnect(a);
	(void)api_schedule(a);
	a->handler(&call, end, text, len, a->userdata);
}

static void api_fail(struct ch_api *a, enum ch_api_end end, const char *text)
{
	api_end(a, end, text, strlen(text));
}

/* An array of strings, the outermost error first (v48 and later); else the text as it is. */
static char *api_error_text(const char *body, size_t len)
{
	CLEANUP(json_codec_putp) struct json_object *o = NULL;
	CLEANUP_FREE char *joined = strdup("");
	char *text = malloc(CH_API_TEXT_MAX);

	if (!joined || !text)
		return free(text), NULL;
	if (json_codec_parse(body, len, &o) < 0 || !json_object_is_type(o, json_type_array)) {
		str_escape(text, CH_API_TEXT_MAX, body, len, "");
		return text;
	}
	for (size_t i = 0; i < json_object_array_length(o) && strlen(joined) < CH_API_TEXT_MAX;
		i++) {
		const char *part = json_object_get_string(json_object_array_get_idx(o, i));
		char *more = str_printf("%s%s%s", joined, i ? ": " : "", str_or(part, "null"));

		if (!more)
			return free(text), NULL;
		free(joined);
		joined = more;
	}
	str_escape(text, CH_API_TEXT_MAX, joined, strlen(joined), "");
	return text;
}

/* The reply leaves the buffer before the handler sees it. */
static void api_on_reply(struct ch_api *a, const struct http_reply *reply)
{
	bool is_done = reply->status < 300;
	CLEANUP_FREE char *text = NULL;
	size_t len = reply->body_len;

	if (a->in_len > reply->total_len) {
		api_fail(a, CH_API_BAD, "it answered more than it was asked");
		return;
	}
	if (is_done) {
		text = malloc(len + 1);
		if (text) {
			memcpy(text, reply->body, len);
			text[len] = 0;
		}
	} else {
		text = api_error_text(reply->body, len);
		if (text && !*text)
			snprintf(text, CH_API_TEXT_MAX, "status %u", reply->status);
		len = text ? strlen(text) : 0;
	}
	a->in_len = a->in_size = 0;
	free(TAKE_PTR(a->in));
	if (text)
		api_end(a, is_done ? CH_API_DONE : CH_API_REFUSED, text, len);
	else
		api_fail(a, CH_API_BAD, strerror(ENOMEM));
}

static int api_make_room(struct ch_api *a)
{
	size_t size = a->in_size ? 2 * a->in_size : CH_API_READ_BYTES;
	char *in;

	if (a->in_len < a->in_size)
		return 0;
	if (a->in_size >= CH_API_MAX_BYTES)
		return -EMSGSIZE;
	in = realloc(a->in, size);
	if (!in)
		return -ENOMEM;
	a->in = in;
	a->in_size = size;
	return 0;
}

static int api_begin(struct ch_api *a);

/*
 * A connection that was kept may have been closed just as the next call was sent: nobody has read that, so it
 * is made once more. Should it have been read after all, the second answer says so ("already created").
 */
static void api_on_end(struct ch_api *a)
{
	bool again = a->kept && a->in_len == 0;
	int r = -ECONNRESET;

	if (again) {
		free(TAKE_PTR(a->out));
		api_disconnect(a);
		r = api_begin(a);
	}
	if (r < 0)
		api_fail(a, CH_API_LOST,
			again && r != -ECONNRESET ? strerror(-r)
						  : "it closed the connection without an answer");
}

/* Bytes that nobody asked for, or the end, between two calls: the connection is not used again. */
static void api_on_input(struct ch_api *a)
{
	struct http_reply reply;
	ssize_t n;
	int r;

	if (!a->busy) {
		api_disconnect(a);
		return;
	}
	r = api_make_room(a);
	if (r < 0) {
		api_fail(a, CH_API_BAD, strerror(-r));
		return;
	}
	n = read(a->fd, a->in + a->in_len, a->in_size - a->in_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		api_on_end(a);
		return;
	}
	a->in_len += (size_t)n;
	r = http_wire_reply(a->in, a->in_len, &reply);
	if (r == -EMSGSIZE)
		api_fail(a, CH_API_BAD, "its answer is longer than any can be");
	else if (r < 0)
		api_fail(a, CH_API_BAD, "its answer is not HTTP");
	else if (r > 0)
		api_on_reply(a, &reply);
}

/* The descriptor goes with the first byte. */
static ssize_t api_send_some(struct ch_api *a)
{
	const struct ch_call *c = &a->queue[0];
	ssize_t n;

	if (a->out_done == 0 && c->fd >= 0)
		return fdpass_send(a->fd, a->out, a->out_len, &c->fd, 1);
	n = send(
		a->fd, a->out + a->out_done, a->out_len - a->out_done, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n < 0 ? -errno : n;
}

/* 0, or -errno: the connection is of no use. */
static int api_send(struct ch_api *a)
{
	while (a->out_done < a->out_len) {
		ssize_t n = api_send_some(a);

		if (n == -EAGAIN || n == -EINTR)
			return sd_event_source_set_io_events(a->io, EPOLLIN | EPOLLOUT);
		if (n < 0)
			return (int)n;
		a->out_done += (size_t)n;
	}
	return sd_event_source_set_io_events(a->io, EPOLLIN);
}

static int api_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct ch_api *a = userdata;

	if ((revents & EPOLLOUT) && a->busy && api_send(a) < 0)
		api_on_end(a);
	else if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
		api_on_input(a);
	return 0;
}

static int api_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	api_fail(userdata, CH_API_SILENT, "it does not answer");
	return 0;
}

/* The end, or bytes that nobody asked for, may wait there; the loop comes to it only after us. */
static bool api_is_stale(const struct ch_api *a)
{
	struct pollfd p = { .fd = a->fd, .events = POLLIN | POLLRDHUP };

	return poll(&p, 1, 0) != 0;
}

static int api_connect(struct ch_api *a)
{
	int r;

	if (a->fd >= 0 && api_is_stale(a))
		api_disconnect(a);
	if (a->fd >= 0)
		return 0;
	a->fd = sockun_connect_fd(a->socket_fd);
	if (a->fd < 0)
		return a->fd;
	r = sd_event_add_io(a->event, &a->io, a->fd, EPOLLIN, api_on_io, a);
	if (r < 0)
		api_disconnect(a);
	return r;
}

static int api_begin(struct ch_api *a)
{
	const struct ch_call *c = &a->queue[0];
	CLEANUP_FREE char *path = str_printf("/api/v1/%s", c->name);
	int r;

	if (!path)
		return -ENOMEM;
	r = http_wire_request(c->method, path, c->body, &a->out, &a->out_len);
	if (r < 0)
		return r;
	a->out_done = 0;
	r = api_connect(a);
	if (r == 0)
		r = sd_event_source_set_time_relative(a->timer, c->deadline_usec);
	if (r >= 0)
		r = sd_event_source_set_enabled(a->timer, SD_EVENT_ONESHOT);
	return r < 0 ? r : api_send(a);
}

/* The server may have closed what was kept from the last call: then once more, on a new connection. */
static int api_on_start(sd_event_source *s, void *userdata)
{
	struct ch_api *a = userdata;
	bool was_connected = a->fd >= 0;
	int r;

	if (a->busy || a->n_queue == 0)
		return 0;
	a->busy = true;
	r = api_begin(a);
	if (r < 0 && r != -EMSGSIZE && was_connected) {
		free(TAKE_PTR(a->out));
		api_disconnect(a);
		r = api_begin(a);
	}
	if (r == -EMSGSIZE)
		api_fail(a, CH_API_BAD, "the request is longer than it takes");
	else if (r < 0)
		api_fail(a, CH_API_LOST, strerror(-r));
	return 0;
}

static int api_watch(struct ch_api *a)
{
	int r;

	r = sd_event_add_time_relative(a->event, &a->timer, CLOCK_MONOTONIC, 0, 0, api_on_timer, a);
	if (r >= 0)
		r = sd_event_source_set_enabled(a->timer, SD_EVENT_OFF);
	if (r >= 0)
		r = sd_event_add_defer(a->event, &a->start, api_on_start, a);
	return r < 0 ? r : sd_event_source_set_enabled(a->start, SD_EVENT_OFF);
}

int ch_api_create_consume(
	sd_event *event, int socket_fd, ch_api_handler handler, void *userdata, struct ch_api **ret)
{
	struct ch_api *a = calloc(1, sizeof *a);
	int r;

	if (!a) {
		close(socket_fd);
		return -ENOMEM;
	}
	a->event = event;
	a->socket_fd = socket_fd;
	a->handler = handler;
	a->userdata = userdata;
	a->fd = -EBADF;
	r = api_watch(a);
	if (r < 0) {
		ch_api_destroy(a);
		return r;
	}
	*ret = a;
	return 0;
}

int ch_api_call(struct ch_api *a, const struct ch_call *call)
{
	if (a->n_queue == CH_API_QUEUE_MAX)
		return -EBUSY;
	a->queue[a->n_queue++] = *call;
	return a->busy ? 0 : api_schedule(a);
}

const char *ch_api_current(const struct ch_api *a)
{
	return a->n_queue > 0 ? a->queue[0].name : NULL;
}

int ch_api_socket(const struct ch_api *a)
{
	return a->n_queue > 0 ? -EBUSY : a->socket_fd;
}

void ch_api_destroy(struct ch_api *a)
{
	if (!a)
		return;
	api_disconnect(a);
	sd_event_source_disable_unref(a->timer);
	sd_event_source_disable_unref(a->start);
	fd_close(a->socket_fd);
	free(a->out);
	free(a);
}
