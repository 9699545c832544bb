#include "sv-broker.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "broker-wire.h"
#include "cleanup.h"
#include "clock.h"
#include "control-client.h"
#include "control-server.h"
#include "fd.h"
#include "fdpass.h"
#include "log.h"
#include "path.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-children.h"
#include "sv-events.h"
#include "sv.h"
#include "vm-service.h"

#define BROKER_BACKLOG 128
#define BROKER_FILES   4096
#define BROKER_REPLY_USEC                                                                          \
	(UINT64_C(100) * 1000) /* the rest of an answer whose beginning is there */

static void on_broker_end(struct sv_child *c);

void sv_broker_init(struct sv *sv)
{
	struct sv_broker *b = &sv->broker;

	b->channel_fd = -EBADF;
	for (size_t i = 0; i < ARRAY_SIZE(b->dials); i++)
		b->dials[i] = (struct sv_dial){ .sv = sv, .fd = -EBADF };
	b->deaths = (struct ratelimit){ .interval_usec = SV_BROKER_WINDOW_USEC,
		.burst = SV_BROKER_RESTARTS };
	b->refusals = (struct ratelimit){ .interval_usec = SV_BROKER_WINDOW_USEC, .burst = 5 };
	sv_child_init(&b->child, sv, "broker", SV_HAPPENINGS);
	b->child.ended = on_broker_end;
}

/* calls of peers */

static void dial_finish(struct sv_dial *d)
{
	d->io = sd_event_source_disable_unref(d->io);
	d->timer = sd_event_source_disable_unref(d->timer);
	d->fd = fd_close(d->fd);
}

static void channel_send(struct sv *sv, uint8_t op, uint32_t id, int fd)
{
	uint8_t bytes[BROKER_WIRE_BYTES];

	broker_wire_put(bytes, &(struct broker_msg){ .op = op, .id = id });
	/* one that does not read ends its own calls */
	if (sv->broker.channel_fd >= 0)
		(void)fdpass_send(sv->broker.channel_fd, bytes, sizeof bytes, &fd, fd >= 0);
}

/* WHY of the peer; both names, as often as it is worth a line. */
static void dial_refuse(struct sv *sv, uint32_t id, const struct vm_connect *c, const char *why)
{
	uint32_t suppressed;

	if (ratelimit_pass(&sv->broker.refusals, clock_usec(CLOCK_MONOTONIC), &suppressed))
		log_warning(
			"%s: its call of port %u, which is %s's port %u, was refused: %s (%u not "
			"told)",
			sv->spec.name, c->port, c->peer, c->peer_port, why, suppressed);
	channel_send(sv, BROKER_REFUSED, id, -EBADF);
}

static void dial_fail(struct sv_dial *d, const char *why)
{
	dial_refuse(d->sv, d->id, &d->connect, why);
	dial_finish(d);
}

static int dial_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	dial_fail(userdata, "no answer in time");
	return 0;
}

static int dial_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv_dial *d = userdata;
	struct control_failure failure = { 0 };
	CLEANUP_CLOSE int there = -EBADF;
	int r = control_client_end(d->fd, BROKER_REPLY_USEC, NULL, &there, &failure);

	if (r < 0 || there < 0) {
		dial_fail(
			d, str_or(failure.message, r < 0 ? strerror(-r) : "it was not connected"));
	} else {
		channel_send(d->sv, BROKER_DIALED, d->id, there);
		dial_finish(d);
	}
	control_failure_finish(&failure);
	return 0;
}

static int dial_call(struct sv_dial *d)
{
	CLEANUP_CLOSE int peer = -EBADF;
	CLEANUP_FREE char *path = str_printf("%s/%s", d->sv->dirs.runtime, d->connect.peer);
	struct json_object *p;
	int r;

	if (!path)
		return -ENOMEM;
	peer = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	d->fd = peer < 0 ? -errno : control_client_connect(peer);
	if (d->fd < 0)
		return d->fd;
	p = json_object_new_object();
	json_object_object_add(p, "from", json_object_new_string(d->sv->spec.name));
	json_object_object_add(p, "port", json_object_new_uint64(d->connect.peer_port));
	r = control_client_begin(d->fd, "io.uvms.VM.Dial", p);
	if (r == 0)
		r = sd_event_add_io(d->sv->event, &d->io, d->fd, EPOLLIN, dial_on_io, d);
	if (r >= 0)
		r = sd_event_add_time_relative(d->sv->event, &d->timer, CLOCK_MONOTONIC,
			SV_DIAL_USEC, 0, dial_on_timer, d);
	return r;
}

static struct sv_dial *dial_room(struct sv_broker *b)
{
	for (size_t i = 0; i < ARRAY_SIZE(b->dials); i++) {
		if (!b->dials[i].timer)
			return &b->dials[i];
	}
	return NULL;
}

static void dial(struct sv *sv, uint32_t id, const struct vm_connect *c)
{
	struct sv_dial *d = dial_room(&sv->broker);
	int r;

	if (!d) {
		dial_refuse(sv, id, c, "too many calls wait");
		return;
	}
	d->id = id;
	d->connect = *c;
	r = dial_call(d);
	if (r < 0)
		dial_fail(d, r == -ENOENT ? "it does not run" : strerror(-r));
}

/* the broker */

static void channel_close(struct sv_broker *b)
{
	b->channel_source = sd_event_source_disable_unref(b->channel_source);
	b->channel_fd = fd_close(b->channel_fd);
	for (size_t i = 0; i < ARRAY_SIZE(b->dials); i++)
		dial_finish(&b->dials[i]);
}

static void condemn(struct sv *sv, const char *why)
{
	log_warning("%s: uvms-broker %s: it is killed and replaced", sv->spec.name, why);
	channel_close(&sv->broker);
	sv_child_signal(&sv->broker.child, SIGKILL);
}

static void obey(struct sv *sv, const struct broker_msg *m)
{
	struct vm_connect c;
	const char *reason;

	if (m->op != BROKER_DIAL || m->rule >= strv_length(sv->spec.connects) ||
		vm_connect_parse(sv->spec.connects[m->rule], &c, &reason) < 0)
		condemn(sv, "broke the rules of its channel");
	else
		dial(sv, m->id, &c);
}

static int on_channel(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	uint8_t bytes[BROKER_WIRE_BYTES + 1];
	struct sv *sv = userdata;
	struct broker_msg m;
	size_t n_fds = 0;
	ssize_t n = fdpass_recv(fd, bytes, sizeof bytes, NULL, &n_fds);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n == 0 || n == -ECONNRESET)
		channel_close(&sv->broker); /* its end is on its way */
	else if (n < 0 || broker_wire_get(bytes, (size_t)n, n_fds, &m) < 0)
		condemn(sv, "broke the rules of its channel");
	else
		obey(sv, &m);
	return 0;
}

/* Where a call of PORT comes out, whoever's the device is: in the same directory as the device's own socket. */
static int listen_one(struct sv *sv, const char *rule)
{
	CLEANUP_CLOSE int fd = -EBADF;
	struct vm_connect c;
	const char *reason;
	char name[24];

	if (vm_connect_parse(rule, &c, &reason) < 0)
		return -EINVAL;
	snprintf(name, sizeof name, VMM_VSOCK_SOCKET "_%u", c.port);
	(void)unlinkat(sv->vsock_fd, name, 0);
	fd = sockun_listen_at(sv->vsock_fd, name, 0600, BROKER_BACKLOG);
	if (fd < 0)
		return fd;
	if (geteuid() == 0 && fchownat(sv->vsock_fd, name, sv->status.uid, sv->status.uid,
				      AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int spawn_broker(struct sv *sv, const struct vm_step *step, int *fds, size_t n_fds)
{
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 }, { RLIMIT_NOFILE, BROKER_FILES } };
	struct spawn spawn = { SPAWN_DEFAULTS, .path = step->args[0],
		.argv = (const char *const *)step->args, .fds = fds, .n_fds = n_fds,
		.limits = limits, .n_limits = ARRAY_SIZE(limits) };

	sv_child_confine(&sv->broker.child, &spawn);
	return sv_child_start(&sv->broker.child, &spawn);
}

static int begin(struct sv *sv, const struct vm_step *step)
{
	int fds[1 + VM_SERVICES_MAX], pair[2], r;
	size_t n = 0;

	r = sockun_pair(SOCK_SEQPACKET, pair);
	if (r < 0)
		return r;
	sv->broker.channel_fd = pair[0];
	fds[n++] = pair[1];
	r = fd_set_nonblock(pair[0], 1);
	for (char **rule = sv->spec.connects; r >= 0 && rule && *rule; rule++) {
		r = fds[n] = listen_one(sv, *rule);
		n += r >= 0;
	}
	if (r >= 0)
		r = spawn_broker(sv, step, fds, n);
	for (size_t i = 0; i < n; i++)
		fd_close(fds[i]);
	return r < 0 ? r : sv_broker_resume(sv);
}

int sv_broker_resume(struct sv *sv)
{
	struct sv_broker *b = &sv->broker;
	int r;

	if (b->channel_fd < 0)
		return 0;
	r = sd_event_add_io(sv->event, &b->channel_source, b->channel_fd, EPOLLIN, on_channel, sv);
	/* a guest calls as often as it likes */
	return r < 0 ? r : control_server_pace(b->channel_source);
}

static void on_broker_end(struct sv_child *c)
{
	struct sv *sv = c->sv;
	char text[128];
	uint32_t suppressed;
	int r = -EAGAIN;

	channel_close(&sv->broker);
	if (sv->state >= SV_STOP_AGENT)
		return;
	sv_child_describe(c, text, sizeof text);
	if (ratelimit_pass(&sv->broker.deaths, clock_usec(CLOCK_MONOTONIC), &suppressed)) {
		sv_child_again(c);
		r = begin(sv, vm_plan_find(&sv->plan, VM_STEP_SERVICES));
	}
	log_warning("%s: uvms-broker %s: %s", sv->spec.name, text,
		r < 0 ? "the guest can call no service any more" : "another one is started");
	sv_events_note(sv, "broker", text);
	if (r < 0)
		channel_close(&sv->broker);
}

int sv_broker_plan(struct sv *sv, char **ret_reason)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP(strv_freep) char **args = NULL;
	int r = 0;

	if (!sv->spec.connects)
		return 0;
	if (path_find_helper("uvms-broker", &program) < 0) {
		*ret_reason = strdup("the helper uvms-broker is not installed");
		return -ENOENT;
	}
	r |= strv_push(&args, program);
	r |= strv_push(&args, sv->spec.name);
	r |= strv_pushf(&args, "%zu", strv_length(sv->spec.connects));
	return r < 0 ? -ENOMEM : vm_plan_add_consume(&sv->plan, VM_STEP_SERVICES, TAKE_PTR(args));
}

int sv_broker_start(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	int r = begin(sv, step);

	if (r < 0)
		*ret_reason = str_printf("uvms-broker cannot be started: %s", strerror(-r));
	return r;
}

void sv_broker_stop(struct sv *sv)
{
	channel_close(&sv->broker);
	sv_child_finish(&sv->broker.child);
}
