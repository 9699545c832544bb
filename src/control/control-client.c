#include "control-client.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control-error.h"
#include "fd.h"
#include "fdpass.h"
#include "json-codec.h"
#include "sockun.h"
#include "str.h"
#include "varlink-wire.h"

int control_client_connect(int runtime_fd)
{
	int fd = sockun_connect_at(runtime_fd, "current/control");

	return fd == -ECONNREFUSED ? -ENOENT : fd;
}

#define CLIENT_LOOK_MS 1000

static int (*client_look)(int fd, uint64_t waited_usec);

void control_client_look_after(int (*look)(int fd, uint64_t waited_usec))
{
	client_look = look;
}

static int client_wait(int fd, uint64_t began_usec, uint64_t deadline_usec)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	uint64_t now = clock_usec(CLOCK_MONOTONIC), left = deadline_usec - now;
	int ms = client_look ? CLIENT_LOOK_MS : -1, n;

	if (now >= deadline_usec)
		return -ETIMEDOUT;
	if (deadline_usec != UINT64_MAX && (ms < 0 || left / 1000 < (uint64_t)ms))
		ms = left / 1000 >= INT32_MAX ? INT32_MAX : (int)((left + 999) / 1000);
	n = poll(&p, 1, ms);
	if (n < 0 && errno != EINTR)
		return -errno;
	return n == 0 && client_look ? client_look(fd, clock_usec(CLOCK_MONOTONIC) - began_usec)
				     : 0;
}

struct client_message {
	char *text; /* owned */
	size_t len, size;
	int fd; /* owned */
};

static int client_receive_some(int sock, struct client_message *m)
{
	int fd = -EBADF;
	size_t n_fds = 1;
	ssize_t n;

	if (m->len == m->size) {
		size_t bigger = m->size ? m->size * 2 : 4096;
		char *p = bigger <= 2 * VARLINK_MESSAGE_MAX ? realloc(m->text, bigger) : NULL;

		if (!p)
			return -EMSGSIZE;
		m->text = p;
		m->size = bigger;
	}
	n = fdpass_recv(sock, m->text + m->len, m->size - m->len, &fd, &n_fds);
	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		return n < 0 ? (int)n : -ECONNRESET;
	m->len += (size_t)n;
	if (n_fds == 1) {
		fd_close(m->fd);
		m->fd = fd;
	}
	return 0;
}

static int client_receive(int sock, uint64_t timeout_usec, struct client_message *m)
{
	uint64_t now = clock_usec(CLOCK_MONOTONIC);
	uint64_t deadline = timeout_usec > UINT64_MAX - now ? UINT64_MAX : now + timeout_usec;
	int r = 0;

	while (r == 0 && !(m->len > 0 && m->text[m->len - 1] == 0)) {
		r = client_wait(sock, now, deadline);
		if (r == 0)
			r = client_receive_some(sock, m);
	}
	return r;
}

static void failure_take(struct control_failure *f, struct json_object *words)
{
	struct json_object *v;

	if (!f || !words)
		return;
	if (json_object_object_get_ex(words, "message", &v))
		(void)str_set(&f->message, json_object_get_string(v));
	if (json_object_object_get_ex(words, "cause", &v))
		(void)str_set(&f->cause, json_object_get_string(v));
	if (json_object_object_get_ex(words, "next", &v))
		(void)str_set(&f->next, json_object_get_string(v));
}

int control_client_begin(int fd, const char *method, struct json_object *parameters)
{
	CLEANUP(json_codec_putp) struct json_object *owned = parameters;
	struct varlink_call call = { .parameters = owned };
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	strncpy(call.method, method, VARLINK_NAME_MAX);
	r = varlink_call_encode(&call, &text, &len);
	if (r < 0)
		return r;
	for (size_t at = 0; at < len;) {
		ssize_t n = send(fd, text + at, len - at, MSG_NOSIGNAL);

		if (n < 0 && errno == EAGAIN)
			poll(&(struct pollfd){ .fd = fd, .events = POLLOUT }, 1, -1);
		else if (n < 0 && errno != EINTR)
			return errno == EPIPE ? -ECONNRESET : -errno;
		else if (n > 0)
			at += (size_t)n;
	}
	return 0;
}

int control_client_end(int fd, uint64_t timeout_usec, struct json_object **ret_parameters,
	int *ret_fd, struct control_failure *failure)
{
	struct client_message m = { .fd = -EBADF };
	struct varlink_reply reply = { 0 };
	int r;

	r = client_receive(fd, timeout_usec, &m);
	if (r == 0)
		r = varlink_reply_decode(m.text, m.len - 1, &reply);
	if (r == 0 && reply.error[0]) {
		failure_take(failure, reply.parameters);
		r = control_error_number(reply.error);
	}
	if (r == 0 && ret_fd)
		*ret_fd = TAKE_FD(m.fd);
	if (r == 0 && ret_parameters)
		*ret_parameters = TAKE_PTR(reply.parameters);
	varlink_reply_finish(&reply);
	fd_close(m.fd);
	free(m.text);
	return r;
}

int control_client_call(int fd, const char *method, struct json_object *parameters,
	uint64_t timeout_usec, struct json_object **ret_parameters, int *ret_fd,
	struct control_failure *failure)
{
	int r = control_client_begin(fd, method, parameters);

	return r < 0 ? r : control_client_end(fd, timeout_usec, ret_parameters, ret_fd, failure);
}

void control_client_wait_end(int fd)
{
	char byte;

	for (;;) {
		ssize_t n = recv(fd, &byte, 1, 0);

		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return;
		if (n < 0)
			poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, -1);
	}
}

void control_failure_finish(struct control_failure *f)
{
	free(f->message);
	free(f->cause);
	free(f->next);
	*f = (struct control_failure){ 0 };
}
