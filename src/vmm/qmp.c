#include "qmp.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"
#include "inbuf.h"
#include "json-codec.h"
#include "str.h"

#define QMP_QUEUE_MAX 8

struct qmp {
	sd_event_source *io, *timer; /* owned */
	qmp_handler handler;
	void *userdata;
	int fd; /* owned */
	bool greeted, ready, faulted;
	bool waiting; /* for a reply */
	struct qmp_command {
		char *text;         /* owned: one line */
		int fd;             /* owned: goes beside it; -EBADF: none */
		bool is_asked;      /* by qmp_ask() */
	} queue[QMP_QUEUE_MAX + 1]; /* one more for the handshake's own */
	bool asked;                 /* what is under way was */
	size_t n_queue;
	struct inbuf in; /* lines, the last one not whole */
};

static void qmp_end(struct qmp *q, enum qmp_kind kind, const char *what)
{
	if (q->faulted)
		return;
	q->faulted = true;
	sd_event_source_set_enabled(q->io, SD_EVENT_OFF);
	sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
	q->handler(q, kind, what, NULL, q->userdata);
}

static void qmp_fault(struct qmp *q, const char *what)
{
	qmp_end(q, QMP_FAULT, what);
}

static int qmp_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	qmp_fault(userdata, "no reply within 5 s");
	return 0;
}

static void qmp_command_finish(struct qmp_command *c)
{
	free(c->text);
	fd_close(c->fd);
}

static ssize_t qmp_send(struct qmp *q, const struct qmp_command *c)
{
	if (c->fd >= 0)
		return fdpass_send(q->fd, c->text, strlen(c->text), &c->fd, 1);
	return send(q->fd, c->text, strlen(c->text), MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void qmp_send_next(struct qmp *q)
{
	struct qmp_command c;
	bool sent;

	if (q->waiting || q->faulted || q->n_queue == 0)
		return;
	c = q->queue[0];
	q->n_queue--;
	memmove(q->queue, q->queue + 1, q->n_queue * sizeof *q->queue);
	q->asked = c.is_asked;
	sent = qmp_send(q, &c) == (ssize_t)strlen(c.text);
	qmp_command_finish(&c);
	if (!sent) {
		qmp_fault(q, "the control socket takes no command");
		return;
	}
	q->waiting = true;
	if (!q->ready)
		return;
	sd_event_source_set_time_relative(q->timer, QMP_REPLY_USEC);
	sd_event_source_set_enabled(q->timer, SD_EVENT_ONESHOT);
}

static int qmp_push_consume(struct qmp *q, struct qmp_command c)
{
	int r = !c.text                       ? -ENOMEM
		: q->faulted                  ? -ENOTCONN
		: q->n_queue == QMP_QUEUE_MAX ? -EBUSY
					      : 0;

	if (r < 0) {
		qmp_command_finish(&c);
		return r;
	}
	q->queue[q->n_queue++] = c;
	if (q->ready)
		qmp_send_next(q);
	return 0;
}

int qmp_ask_consume(struct qmp *q, char *command, int fd)
{
	CLEANUP_FREE char *text = command;

	return qmp_push_consume(
		q, (struct qmp_command){ .text = text ? str_printf("%s\n", text) : NULL,
			   .fd = fd,
			   .is_asked = true });
}

int qmp_execute(struct qmp *q, const char *command)
{
	return qmp_push_consume(
		q, (struct qmp_command){
			   .text = str_printf("{\"execute\":\"%s\"}\n", command), .fd = -EBADF });
}

static void qmp_on_reply(struct qmp *q, const char *error, struct json_object *value)
{
	if (!q->waiting) {
		qmp_fault(q, "a reply that nobody asked for");
		return;
	}
	q->waiting = false;
	sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
	if (q->ready) {
		q->handler(q, q->asked ? QMP_RESULT : QMP_REPLY, error, value, q->userdata);
	} else if (error) {
		qmp_fault(q, error);
	} else {
		q->ready = true;
		q->handler(q, QMP_READY, NULL, NULL, q->userdata);
	}
	qmp_send_next(q);
}

static void qmp_on_greeting(struct qmp *q)
{
	if (q->greeted) {
		qmp_fault(q, "a second greeting");
		return;
	}
	q->greeted = true;
	/* before anything that was queued meanwhile */
	memmove(q->queue + 1, q->queue, q->n_queue++ * sizeof *q->queue);
	q->queue[0] = (struct qmp_command){ strdup("{\"execute\":\"qmp_capabilities\"}\n"), -EBADF,
		false };
	if (q->queue[0].text)
		qmp_send_next(q);
	else
		qmp_fault(q, strerror(ENOMEM));
}

static void qmp_on_message(struct qmp *q, struct json_object *m)
{
	struct json_object *v, *data = NULL, *text = NULL;

	if (!json_object_is_type(m, json_type_object)) {
		qmp_fault(q, "a message that is no object");
	} else if (json_object_object_get_ex(m, "event", &v)) {
		json_object_object_get_ex(m, "data", &data);
		if (json_object_is_type(v, json_type_string))
			q->handler(q, QMP_EVENT, json_object_get_string(v), data, q->userdata);
	} else if (json_object_object_get_ex(m, "return", &v)) {
		qmp_on_reply(q, NULL, v);
	} else if (json_object_object_get_ex(m, "error", &v)) {
		json_object_object_get_ex(v, "desc", &text);
		qmp_on_reply(q, text ? json_object_get_string(text) : "unnamed error", v);
	} else if (json_object_object_get_ex(m, "QMP", &v)) {
		qmp_on_greeting(q);
	} else {
		qmp_fault(q, "a message of no known kind");
	}
}

static void qmp_on_line(struct qmp *q, const char *line, size_t len)
{
	CLEANUP(json_codec_putp) struct json_object *m = NULL;

	while (len > 0 && (line[len - 1] == '\r' || line[len - 1] == ' '))
		len--;
	if (len == 0)
		return;
	if (json_codec_parse(line, len, &m) < 0)
		qmp_fault(q, "text that is no JSON");
	else
		qmp_on_message(q, m);
}

static void qmp_take_lines(struct qmp *q)
{
	const char *data = (const char *)q->in.data, *end;
	size_t at = 0;

	while (!q->faulted && (end = memchr(data + at, '\n', q->in.len - at))) {
		qmp_on_line(q, data + at, (size_t)(end - data) - at);
		at = (size_t)(end - data) + 1;
	}
	inbuf_take(&q->in, at);
	if (q->in.len == QMP_LINE_MAX)
		qmp_fault(q, "a line longer than 64 KiB");
}

static int qmp_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct qmp *q = userdata;
	ssize_t n = inbuf_read(&q->in, fd, QMP_LINE_MAX);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n == -ENOMEM)
		qmp_fault(q, "no memory for what it says");
	else if (n <= 0)
		qmp_end(q, QMP_CLOSED, "it closed its control socket");
	else
		qmp_take_lines(q);
	return 0;
}

int qmp_create_consume(
	sd_event *event, int fd, qmp_handler handler, void *userdata, struct qmp **ret)
{
	struct qmp *q = calloc(1, sizeof *q);
	int r;

	if (!q) {
		close(fd);
		return -ENOMEM;
	}
	q->fd = fd;
	q->handler = handler;
	q->userdata = userdata;
	r = fd_set_nonblock(fd, 1);
	if (r >= 0)
		r = sd_event_add_io(event, &q->io, fd, EPOLLIN, qmp_on_io, q);
	if (r >= 0)
		r = sd_event_add_time_relative(
			event, &q->timer, CLOCK_MONOTONIC, QMP_REPLY_USEC, 0, qmp_on_timer, q);
	if (r >= 0)
		r = sd_event_source_set_enabled(q->timer, SD_EVENT_OFF);
	if (r < 0) {
		qmp_destroy(q);
		return r;
	}
	*ret = q;
	return 0;
}

int qmp_save(const struct qmp *q, int *ret_fd, const char **ret_line, size_t *ret_len)
{
	if (!q->ready || q->faulted || q->waiting || q->n_queue > 0)
		return -EBUSY;
	*ret_fd = q->fd;
	*ret_line = (const char *)q->in.data;
	*ret_len = q->in.len;
	return 0;
}

int qmp_restore_consume(sd_event *event, int fd, const char *line, size_t len, qmp_handler handler,
	void *userdata, struct qmp **ret)
{
	struct qmp *q;
	int r;

	if (len >= QMP_LINE_MAX) {
		close(fd);
		return -EINVAL;
	}
	r = qmp_create_consume(event, fd, handler, userdata, &q);
	if (r < 0)
		return r;
	r = inbuf_put(&q->in, line, len);
	if (r < 0) {
		qmp_destroy(q);
		return r;
	}
	q->greeted = q->ready = true;
	*ret = q;
	return 0;
}

void qmp_destroy(struct qmp *q)
{
	if (!q)
		return;
	sd_event_source_disable_unref(q->io);
	sd_event_source_disable_unref(q->timer);
	for (size_t i = 0; i < q->n_queue; i++)
		qmp_command_finish(&q->queue[i]);
	fd_close(q->fd);
	inbuf_finish(&q->in);
	free(q);
}
