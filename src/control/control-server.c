#include "control-server.h"

#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "control-error.h"
#include "control-group.h"
#include "fd.h"
#include "fdpass.h"
#include "json-codec.h"
#include "str.h"
#include "varlink-wire.h"

struct control_call {
	struct control_server *server; /* borrowed */
	struct control_call *next;     /* in server->connections */
	sd_event_source *io, *timer;   /* owned */
	int fd;                        /* owned: the connection */
	bool may_write, owner;
	bool busy; /* a method is answering */
	bool oneway;

	char *in; /* owned */
	size_t in_len, in_size;
	char *out; /* owned */
	size_t out_len, out_pos;
	int out_fd; /* owned: goes with the first byte of out */
};

struct control_server {
	sd_event *event;     /* borrowed */
	sd_event_source *io; /* owned */
	const struct control_hooks *hooks;
	int fd;                           /* owned */
	struct control_call *connections; /* owned */
	size_t n_connections;
};

static void call_free(struct control_call *c)
{
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->timer);
	fd_close(c->fd);
	fd_close(c->out_fd);
	free(c->in);
	free(c->out);
	free(c);
}

static void call_drop(struct control_call *c)
{
	struct control_server *s = c->server;
	struct control_call **p = &s->connections;

	while (*p && *p != c)
		p = &(*p)->next;
	if (*p) {
		*p = c->next;
		s->n_connections--;
	}
	if (c->busy)
		s->hooks->gone(c, s->hooks->userdata);
	if (c->owner && s->hooks->owner_gone)
		s->hooks->owner_gone(s->hooks->userdata);
	call_free(c);
}

/* Returns false when the connection is gone. */
static bool call_flush(struct control_call *c)
{
	while (c->out_pos < c->out_len) {
		ssize_t n = fdpass_send(c->fd, c->out + c->out_pos, c->out_len - c->out_pos,
			&c->out_fd, c->out_fd >= 0);

		if (n == -EAGAIN)
			return true;
		if (n < 0)
			return false;
		c->out_fd = fd_close(c->out_fd);
		c->out_pos += (size_t)n;
	}
	free(c->out);
	c->out = NULL;
	c->out_len = c->out_pos = 0;
	return true;
}

static void call_watch(struct control_call *c)
{
	bool sending = c->out_len > 0;
	/* a message that came together with the last one has no event of its own: make one */
	bool pending = !c->busy && c->in_len > 0 && memchr(c->in, 0, c->in_len);

	/* while it is busy only the end of the connection is of interest */
	sd_event_source_set_io_events(c->io, sending || pending ? EPOLLOUT
					     : c->busy          ? EPOLLRDHUP
								: EPOLLIN | EPOLLRDHUP);
	if (sending) {
		sd_event_source_set_time_relative(c->timer, CONTROL_SEND_USEC);
		sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
	} else {
		sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	}
}

static void call_answer(
	struct control_call *c, const char *error, struct json_object *parameters, int fd)
{
	CLEANUP(json_codec_putp) struct json_object *owned = parameters;
	struct varlink_reply reply = { .parameters = owned };

	c->busy = false;
	if (c->oneway) {
		call_watch(c);
		return;
	}
	if (error)
		strncpy(reply.error, error, VARLINK_NAME_MAX);
	if (fd >= 0)
		c->out_fd = dup(fd);
	if (varlink_reply_encode(&reply, &c->out, &c->out_len) < 0 || !call_flush(c))
		shutdown(c->fd, SHUT_RDWR); /* its own event frees it: the caller may hold C */
	call_watch(c);
}

void control_call_reply(struct control_call *call, struct json_object *parameters, int fd)
{
	call_answer(call, NULL, parameters, fd);
}

void control_call_error(struct control_call *call, int error, struct json_object *words)
{
	call_answer(call, control_error_name(error), words, -EBADF);
}

static void service_info(struct control_call *c)
{
	struct json_object *info = json_object_new_object(), *names = json_object_new_array();

	json_object_array_add(names, json_object_new_string("io.uvms.VM"));
	json_object_array_add(names, json_object_new_string("org.varlink.service"));
	json_object_object_add(info, "vendor", json_object_new_string("uvms"));
	json_object_object_add(info, "product", json_object_new_string("uvms-supervisor"));
	json_object_object_add(info, "version", json_object_new_string(UVMS_VERSION));
	json_object_object_add(info, "url", json_object_new_string("https://uvms.io"));
	json_object_object_add(info, "interfaces", names);
	control_call_reply(c, info, -EBADF);
}

static void service_description(struct control_call *c, struct json_object *parameters)
{
	struct json_object *v = NULL, *reply;

	if (!parameters || !json_object_object_get_ex(parameters, "interface", &v) ||
		!str_eq(json_object_get_string(v), "io.uvms.VM")) {
		control_call_error(c, -EINVAL, NULL);
		return;
	}
	reply = json_object_new_object();
	json_object_object_add(
		reply, "description", json_object_new_string(c->server->hooks->description));
	control_call_reply(c, reply, -EBADF);
}

static void call_dispatch(struct control_call *c, const struct varlink_call *call)
{
	const struct control_hooks *hooks = c->server->hooks;

	if (str_eq(call->method, "org.varlink.service.GetInfo")) {
		service_info(c);
		return;
	}
	if (str_eq(call->method, "org.varlink.service.GetInterfaceDescription")) {
		service_description(c, call->parameters);
		return;
	}
	for (const struct control_method *m = hooks->methods; m->name; m++) {
		if (!str_eq(m->name, call->method))
			continue;
		if (m->reads_only || c->may_write)
			m->fn(c, call->parameters, hooks->userdata);
		else
			control_call_error(
				c, -EACCES, control_error_words("permission denied", NULL, NULL));
		return;
	}
	control_call_error(c, -ENOSYS, NULL);
}

/* Takes one message out of the buffer and runs it. False: drop the connection. */
static bool call_take_message(struct control_call *c)
{
	struct varlink_call call;
	char *end = memchr(c->in, 0, c->in_len);
	size_t len;
	int r;

	if (!end)
		return c->in_len < VARLINK_MESSAGE_MAX;
	len = (size_t)(end - c->in);
	r = varlink_call_decode(c->in, len, &call);
	c->in_len -= len + 1;
	memmove(c->in, end + 1, c->in_len);
	if (r < 0)
		return false;
	c->busy = true;
	c->oneway = call.oneway;
	call_dispatch(c, &call);
	varlink_call_finish(&call);
	return true;
}

/* 1: something was read, 0: nothing now, -errno: the end. */
static int call_read(struct control_call *c)
{
	ssize_t n;

	if (c->in_len == c->in_size) {
		size_t bigger = c->in_size ? c->in_size * 2 : 1024;
		char *p = bigger <= VARLINK_MESSAGE_MAX ? realloc(c->in, bigger) : NULL;

		if (!p)
			return -ENOBUFS;
		c->in = p;
		c->in_size = bigger;
	}
	n = read(c->fd, c->in + c->in_len, c->in_size - c->in_len);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	c->in_len += (size_t)n;
	return 1;
}

static int call_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control_call *c = userdata;
	int r = 0;

	if (c->busy || (c->out_len > 0 && !call_flush(c))) {
		/* nothing may be sent while a call is under way: this is the end */
		call_drop(c);
		return 0;
	}
	if (c->out_len == 0 && (revents & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)))
		r = call_read(c);
	if (r < 0) {
		call_drop(c);
		return 0;
	}
	while (!c->busy && c->out_len == 0 && c->in_len > 0 && memchr(c->in, 0, c->in_len)) {
		if (!call_take_message(c)) {
			call_drop(c);
			return 0;
		}
	}
	call_watch(c);
	return 0;
}

static int call_on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	call_drop(userdata);
	return 0;
}

static bool peer_in_group(int fd, gid_t group)
{
	gid_t groups[256];
	socklen_t len = sizeof groups;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) < 0)
		return false;
	for (size_t i = 0; i < len / sizeof *groups; i++) {
		if (groups[i] == group)
			return true;
	}
	return false;
}

static bool peer_is_own_user(const struct ucred *cred)
{
	return cred->uid == 0 || cred->uid == getuid();
}

bool control_call_is_own_user(const struct control_call *call)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	return getsockopt(call->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 &&
	       peer_is_own_user(&cred);
}

pid_t control_call_pid(const struct control_call *call)
{
	struct ucred cred;
	socklen_t len = sizeof cred;

	return getsockopt(call->fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0 ? cred.pid : 0;
}

static bool peer_may_write(int fd)
{
	struct ucred cred;
	socklen_t len = sizeof cred;
	gid_t group;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		return false;
	if (peer_is_own_user(&cred))
		return true;
	if (control_group_find(&group) < 0)
		return false;
	return cred.gid == group || peer_in_group(fd, group);
}

static int server_add_consume(struct control_server *s, int fd, bool owner)
{
	struct control_call *c = calloc(1, sizeof *c);
	int r;

	if (!c) {
		close(fd);
		return -ENOMEM;
	}
	*c = (struct control_call){ .server = s,
		.fd = fd,
		.out_fd = -EBADF,
		.owner = owner,
		.may_write = owner || peer_may_write(fd) };
	r = fd_set_nonblock(fd, 1);
	if (r >= 0)
		r = sd_event_add_io(s->event, &c->io, fd, EPOLLIN | EPOLLRDHUP, call_on_io, c);
	if (r >= 0)
		r = sd_event_add_time_relative(s->event, &c->timer, CLOCK_MONOTONIC,
			CONTROL_SEND_USEC, 0, call_on_timer, c);
	if (r >= 0)
		r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
	if (r < 0) {
		call_free(c);
		return r;
	}
	c->next = s->connections;
	s->connections = c;
	s->n_connections++;
	return 0;
}

static int server_on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct control_server *s = userdata;
	int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (peer < 0)
		return 0;
	if (s->n_connections >= CONTROL_CONNECTIONS_MAX)
		close(peer);
	else
		(void)server_add_consume(s, peer, false);
	return 0;
}

int control_server_pace(sd_event_source *listening)
{
	return sd_event_source_set_ratelimit(listening, CONTROL_PACE_USEC, CONTROL_PACE);
}

int control_server_create(
	sd_event *event, const struct control_hooks *hooks, struct control_server **ret)
{
	struct control_server *s = calloc(1, sizeof *s);

	if (!s)
		return -ENOMEM;
	*s = (struct control_server){ .event = event, .hooks = hooks, .fd = -EBADF };
	*ret = s;
	return 0;
}

int control_server_listen_consume(struct control_server *s, int listen_fd)
{
	int r;

	s->fd = listen_fd;
	r = sd_event_add_io(s->event, &s->io, listen_fd, EPOLLIN, server_on_io, s);
	return r < 0 ? r : control_server_pace(s->io);
}

int control_server_adopt_consume(struct control_server *s, int fd)
{
	return server_add_consume(s, fd, true);
}

int control_server_save(
	const struct control_server *s, int *ret_listen_fd, struct control_saved *ret, size_t max)
{
	size_t n = 0;

	for (struct control_call *c = s->connections; c; c = c->next) {
		if (n == max)
			return -E2BIG;
		ret[n++] = (struct control_saved){ .fd = c->fd,
			.out_fd = c->out_fd,
			.may_write = c->may_write,
			.owner = c->owner,
			.busy = c->busy,
			.oneway = c->oneway,
			.in = c->in,
			.in_len = c->in_len,
			.out = c->out ? c->out + c->out_pos : NULL,
			.out_len = c->out_len - c->out_pos,
			.call = c };
	}
	*ret_listen_fd = s->fd;
	return (int)n;
}

static int call_fill(struct control_call *c, const struct control_saved *from)
{
	c->may_write = from->may_write;
	c->busy = from->busy;
	c->oneway = from->oneway;
	for (c->in_size = 1024; c->in_size < from->in_len;)
		c->in_size *= 2;
	c->in = malloc(c->in_size);
	c->out = from->out_len > 0 ? malloc(from->out_len) : NULL;
	if (!c->in || (from->out_len > 0 && !c->out))
		return -ENOMEM;
	memcpy(c->in, from->in, from->in_len);
	if (from->out_len > 0)
		memcpy(c->out, from->out, from->out_len);
	c->in_len = from->in_len;
	c->out_len = from->out_len;
	return 0;
}

int control_server_restore_consume(struct control_server *s, struct control_saved *from)
{
	int r = server_add_consume(s, from->fd, from->owner);

	if (r < 0) {
		fd_close(from->out_fd);
		return r;
	}
	from->call = s->connections;
	from->call->out_fd = from->out_fd;
	r = call_fill(from->call, from);
	if (r == 0)
		call_watch(from->call);
	return r;
}

void control_server_destroy(struct control_server *s)
{
	if (!s)
		return;
	for (struct control_call *c = s->connections, *next; c; c = next) {
		struct pollfd p = { .fd = c->fd, .events = POLLOUT };

		next = c->next;
		for (int i = 0; i < 10 && c->out_len > 0 && call_flush(c) && c->out_len > 0; i++)
			poll(&p, 1, 100);
		call_free(c);
	}
	sd_event_source_disable_unref(s->io);
	fd_close(s->fd);
	free(s);
}
