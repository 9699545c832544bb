#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
#include "parse.h"
#include "relay.h"
#include "str.h"
#include "verb-list.h"

static bool arg_quiet;

static const struct option_def options[] = {
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "do not say where it listens" },
	{ 0 },
};

static const char *socket_to_remove;

static void on_end(int signo)
{
	if (socket_to_remove)
		unlink(socket_to_remove);
	_exit(0);
}

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
	return listen(fd, 128) < 0 ? -errno : TAKE_FD(fd);
}

static int listen_on(const struct addrinfo *a)
{
	CLEANUP_CLOSE int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, a->ai_addr, a->ai_addrlen) < 0 || listen(fd, 128) < 0)
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

static int read_exactly(int fd, uint8_t *buf, size_t len)
{
	ssize_t n = fd_read_full(fd, buf, len);

	return n < 0 ? (int)n : (size_t)n == len ? 0 : -ECONNRESET;
}

/* One frame and not a byte more: raw bytes follow. 0, or -ECONNREFUSED with TEXT. */
static int read_answer(int fd, char text[static 200])
{
	uint8_t buf[AGENT_WIRE_HEADER + AGENT_WIRE_TEXT_MAX + 64];
	struct agent_wire_msg m;
	uint32_t len;
	int r;

	snprintf(text, 200, "the agent broke the protocol");
	r = read_exactly(fd, buf, AGENT_WIRE_HEADER);
	if (r < 0)
		return r;
	len = (uint32_t)buf[0] | (uint32_t)buf[1] << 8 | (uint32_t)buf[2] << 16 |
	      (uint32_t)buf[3] << 24;
	if (len > sizeof buf - AGENT_WIRE_HEADER)
		return -EPROTO;
	r = read_exactly(fd, buf + AGENT_WIRE_HEADER, len);
	if (r < 0)
		return r;
	if (agent_wire_decode(buf, AGENT_WIRE_HEADER + len, &m) <= 0)
		return -EPROTO;
	if (m.type == AGENT_WIRE_FORWARD_OK)
		return 0;
	if (m.type == AGENT_WIRE_FAILED)
		str_escape(text, 200, m.failed.text.s, m.failed.text.len, NULL);
	return -ECONNREFUSED;
}

/* A connection to the target in the guest; TEXT says why not. -ECONNRESET: the VM is gone. */
static int open_target(int control, const struct agent_wire_msg *target, char text[static 200])
{
	struct control_failure f = { 0 };
	CLEANUP_CLOSE int fd = -EBADF;
	uint8_t frame[AGENT_WIRE_HEADER + AGENT_WIRE_PATH_MAX + 64];
	ssize_t n;
	int r;

	r = control_client_call(control, "io.uvms.VM.OpenAgent", NULL, UINT64_MAX, NULL, &fd, &f);
	snprintf(text, 200, "%s", str_or(f.message, strerror(-r)));
	control_failure_finish(&f);
	if (r < 0)
		return r;
	n = agent_wire_encode(target, frame, sizeof frame);
	r = n < 0 ? (int)n : fd_write_all(fd, frame, (size_t)n);
	if (r == 0)
		r = read_answer(fd, text);
	if (r == -ECONNRESET || r == -EPIPE)
		r = -ECONNREFUSED; /* that session only */
	return r < 0 ? r : TAKE_FD(fd);
}

static int accept_one(struct relay *relay, int control, int listener, const char *name,
	const struct agent_wire_msg *target)
{
	CLEANUP_CLOSE int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	char text[200];
	int guest;

	if (client < 0)
		return 0;
	guest = open_target(control, target, text);
	if (guest == -ECONNRESET)
		return guest;
	if (guest < 0) {
		fail_say("%s: a connection was refused: %s", name, text);
		return 0;
	}
	return relay_add_consume(relay, TAKE_FD(client), guest) < 0 ? 0 : 0;
}

/* The control connection ends with the VM, and the forward with it. */
static int serve(const char *name, int control, int listener, const struct agent_wire_msg *target)
{
	CLEANUP(relay_destroyp) struct relay *relay = NULL;
	struct pollfd p = { .fd = control, .events = POLLRDHUP };
	int r = relay_create(&relay);

	while (r >= 0) {
		r = relay_turn(relay, listener, 1000);
		if (r > 0)
			r = accept_one(relay, control, listener, name, target);
		if (poll(&p, 1, 0) > 0)
			r = -ECONNRESET;
	}
	if (socket_to_remove)
		unlink(socket_to_remove);
	if (r != -ECONNRESET)
		return fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s: the forward ended", name);
	fail_say("%s ended, and the forward with it", name);
	return 0;
}

static int run(int argc, char **argv)
{
	CLEANUP_CLOSE int control = -EBADF, listener = -EBADF;
	struct agent_wire_msg target;
	int r = cli_check_name(argv[0]);

	if (r)
		return r;
	if (parse_target(argv[2], &target) < 0)
		return fail(UVMS_EXIT_USAGE, NULL, "uvms help forward",
			"%s is no port of the guest: PORT, vsock:PORT or unix:/PATH", argv[2]);
	control = cli_connect(argv[0]);
	if (control < 0)
		return fail_call(argv[0], control, &(struct control_failure){ 0 });
	listener =
		str_has_prefix(argv[1], "unix:") ? listen_unix(argv[1] + 5) : listen_tcp(argv[1]);
	if (listener < 0)
		return fail(UVMS_EXIT_FAILED,
			listener == -EINVAL ? "it is no address" : strerror(-listener),
			listener == -EADDRINUSE ? "take another port, or stop what listens there"
						: NULL,
			"%s cannot be listened on", argv[1]);
	signal(SIGINT, on_end);
	signal(SIGTERM, on_end);
	signal(SIGPIPE, SIG_IGN);
	if (!arg_quiet)
		fail_say("forwarding %s to %s of %s; ^C ends it", argv[1], argv[2], argv[0]);
	return serve(argv[0], control, listener, &target);
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
