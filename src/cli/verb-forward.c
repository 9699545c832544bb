#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent-wire.h"
#include "cleanup.h"
#include "cli.h"
#include "control-client.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "forward-dial.h"
#include "loop.h"
#include "parse.h"
#include "relay.h"
#include "sandbox.h"
#include "str.h"
#include "verb-list.h"

#define BACKLOG     RELAY_PAIRS_MAX /* those that wait; the kernel's own limit holds, too */

#define BREATH_USEC (UINT64_C(100) * 1000) /* without descriptors or memory for one more */

static bool arg_quiet;

static const struct option_def options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not say where it listens" },
	{ 0 },
};

static const char *socket_to_remove;

static int listen_unix(const char *path)
{
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof sa.sun_path)
		return -ENAMETOOLONG;
	strcpy(sa.sun_path, path);
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof sa) < 0)
		return -errno;
	socket_to_remove = path;
	return listen(fd, BACKLOG) < 0 ? -errno : TAKE_FD(fd);
}

static int listen_on(const struct addrinfo *a)
{
	CLEANUP_CLOSE int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/* "HOST:PORT", "[::1]:PORT" or "PORT" (on 127.0.0.1). */
static int listen_tcp(const char *where)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV };
	CLEANUP_FREE char *host = strdup(where);
	struct addrinfo *found = NULL;
	char *colon, *name;
	int fd = -EINVAL;

	if (!host)
		return -ENOMEM;
	colon = strrchr(host, ':');
	if (colon)
		*colon = 0;
	name = colon ? host : NULL;
	if (name && *name == '[' && name[strlen(name) - 1] == ']') {
		name[strlen(name) - 1] = 0;
		name++;
	}
	if (getaddrinfo(name ? name : "127.0.0.1", colon ? colon + 1 : host, &hints, &found) != 0)
		return -EINVAL;
	for (struct addrinfo *a = found; a; a = a->ai_next) {
		fd = listen_on(a);
		if (fd >= 0)
			break;
	}
	freeaddrinfo(found);
	return fd;
}

/* "80", "tcp:80", "vsock:5000" or "unix:/run/x.sock": where in the guest. */
static int parse_target(const char *s, struct agent_wire_msg *ret)
{
	*ret = (struct agent_wire_msg){ .type = AGENT_WIRE_FORWARD };
	if (str_has_prefix(s, "unix:/")) {
		ret->forward.kind = AGENT_FORWARD_UNIX;
		ret->forward.path = wire_str_from(s + 5);
		return 0;
	}
	ret->forward.kind = str_has_prefix(s, "vsock:") ? AGENT_FORWARD_VSOCK : AGENT_FORWARD_TCP;
	if (str_has_prefix(s, "vsock:") || str_has_prefix(s, "tcp:"))
		s = strchr(s, ':') + 1;
	return parse_port(s, &ret->forward.port);
}

struct forward {
	struct loop loop;
	struct loop_source listener, signals;
	int listen_fd, signal_fd; /* owned */
	struct loop_timer breath;
	bool listening, breather, complained;
	struct forward_dialer dialer;
	struct relay relay;
	size_t pairs_max;
	const char *name;
};

/* A new client is only taken when all that it needs is there; until then it waits in the queue. */
static void forward_listen(struct forward *f)
{
	size_t busy = forward_dial_busy(&f->dialer);
	bool full = f->relay.n_pairs + busy >= f->pairs_max;
	bool want = busy < FORWARD_DIALS && !full && !f->breather;

	if (f->breather)
		loop_timer_set(&f->loop, &f->breath, BREATH_USEC);
	if (want && !f->listening)
		f->listening = loop_source_add(&f->loop, &f->listener, f->listen_fd, EPOLLIN) == 0;
	else if (!want && f->listening)
		loop_source_remove(&f->loop, &f->listener);
	f->listening = f->listening && want;
	if (full && !f->complained) {
		f->complained = true;
		fail_say("%s: %zu connections are open; more have to wait", f->name, f->pairs_max);
	}
}

static void forward_on_breath(struct loop_timer *t)
{
	struct forward *f = CONTAINER_OF(t, struct forward, breath);

	f->breather = false;
	forward_listen(f);
}

static void forward_on_listener(struct loop_source *s, uint32_t events)
{
	struct forward *f = CONTAINER_OF(s, struct forward, listener);
	int client = accept4(f->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (client >= 0)
		forward_dial_start_consume(&f->dialer, client);
	else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
		f->breather = true; /* the host has no more to give now */
	forward_listen(f);
}

static void forward_opened(int client, int guest, void *user)
{
	struct forward *f = user;

	(void)relay_add_consume(&f->relay, client, guest);
	forward_listen(f);
}

static void forward_failed(const char *text, void *user)
{
	struct forward *f = user;

	fail_say("%s: a connection was refused: %s", f->name, text);
	forward_listen(f);
}

static void forward_pair_ended(void *user)
{
	forward_listen(user);
}

static void forward_vm_ended(void *user)
{
	struct forward *f = user;

	fail_say("%s ended, and the forward with it", f->name);
	loop_stop(&f->loop, 0);
}

static void forward_on_signal(struct loop_source *s, uint32_t events)
{
	loop_stop(&CONTAINER_OF(s, struct forward, signals)->loop, 0);
}

static int forward_open_signals(struct forward *f)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	f->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (f->signal_fd < 0)
		return -errno;
	loop_source_init(&f->signals, forward_on_signal);
	return loop_source_add(&f->loop, &f->signals, f->signal_fd, EPOLLIN);
}

/* Two descriptors a connection, and what the dials, the relay's pipes and the process itself have. */
static size_t forward_pairs_max(struct forward *f)
{
	const unsigned own = 3 * FORWARD_DIALS + 16, pipes = 2 * RELAY_PIPES_MAX;
	struct rlimit lim = { 0 };

	if (sandbox_want_fds(2 * RELAY_PAIRS_MAX + own + pipes) == 0)
		return RELAY_PAIRS_MAX;
	f->relay.pipes.max = 1; /* the rest is for connections */
	getrlimit(RLIMIT_NOFILE, &lim);
	lim.rlim_cur = lim.rlim_cur > own + 2 ? (lim.rlim_cur - own) / 2 : 1;
	lim.rlim_cur = lim.rlim_cur < RELAY_PAIRS_MAX ? lim.rlim_cur : RELAY_PAIRS_MAX;
	if (lim.rlim_cur < RELAY_PAIRS_MAX)
		fail(0, "the limit of open files (ulimit -Hn) is too low for more", NULL,
			"warning: %s: at most %zu connections at once", f->name,
			(size_t)lim.rlim_cur);
	return lim.rlim_cur;
}

static void forward_finish(struct forward *f)
{
	relay_finish(&f->relay);
	forward_dial_finish(&f->dialer);
	fd_close(f->signal_fd);
	fd_close(f->listen_fd);
	loop_finish(&f->loop);
	free(f);
}

static struct forward *forward_create(const char *name, const struct agent_wire_msg *target)
{
	struct forward *f = calloc(1, sizeof *f);

	if (!f || loop_init(&f->loop) < 0)
		exit(fail(UVMS_EXIT_FAILED, strerror(errno), NULL, "%s: out of memory", name));
	f->name = name;
	f->listen_fd = f->signal_fd = -EBADF;
	f->dialer = (struct forward_dialer){ .loop = &f->loop,
		.vm_name = name,
		.target = target,
		.opened = forward_opened,
		.failed = forward_failed,
		.ended = forward_vm_ended,
		.user = f };
	if (relay_init(&f->relay, &f->loop, forward_pair_ended, f) < 0)
		exit(fail(UVMS_EXIT_FAILED, strerror(errno), NULL, "%s: no forward", name));
	loop_source_init(&f->listener, forward_on_listener);
	loop_timer_init(&f->breath, forward_on_breath);
	return f;
}

static int forward_run(struct forward *f, const char *where, const char *target)
{
	int r = forward_dial_init(&f->dialer);

	if (r == -ENOENT)
		return cli_not_running(f->name);
	if (r < 0)
		return fail_call(f->name, r, &(struct control_failure){ 0 });
	f->listen_fd = str_has_prefix(where, "unix:") ? listen_unix(where + 5) : listen_tcp(where);
	if (f->listen_fd < 0)
		return fail(UVMS_EXIT_FAILED,
			f->listen_fd == -EINVAL ? "it is no address" : strerror(-f->listen_fd),
			f->listen_fd == -EADDRINUSE
				? "take another port, or stop what listens there"
				: NULL,
			"%s cannot be listened on", where);
	f->pairs_max = forward_pairs_max(f);
	r = forward_open_signals(f);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s: no forward", f->name);
	forward_listen(f);
	if (!arg_quiet)
		fail_say("forwarding %s to %s of %s; ^C ends it", where, target, f->name);
	r = loop_run(&f->loop);
	return r < 0 ? fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s: the forward ended", f->name)
		     : r;
}

static int run(int argc, char **argv)
{
	struct agent_wire_msg target;
	struct forward *f;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (parse_target(argv[2], &target) < 0)
		return fail(UVMS_EXIT_USAGE, NULL, "uvms help forward",
			"%s is no port of the guest: PORT, vsock:PORT or unix:/PATH", argv[2]);
	f = forward_create(argv[0], &target);
	r = forward_run(f, argv[1], argv[2]);
	if (socket_to_remove)
		unlink(socket_to_remove);
	forward_finish(f);
	return r;
}

const struct verb verb_forward = {
	.name = "forward",
	.arguments = "NAME [HOST:]PORT|unix:PATH GUEST-PORT|vsock:PORT|unix:PATH",
	.summary = "pass connections on the host into a VM, over vsock",
	.description = "Needs no address in the guest. Each connection's two directions end "
		       "separately. It lasts until\n"
		       "^C or the end of the VM.",
	.options = options,
	.min = 3,
	.max = 3,
	.run = run,
};
