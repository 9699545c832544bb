/*
 * Theory of operation. One poll loop over the connection, stdin, stdout, stderr and a signalfd. What
 * the guest sends is held in a buffer of one window per stream and written as the reader takes it (in
 * pieces of at most PIPE_BUF after POLLOUT, so that a blocking descriptor that others share never
 * blocks us); bytes are acknowledged once written. stdin is read only while the guest's window has
 * room. A reader that is gone (EPIPE) is told to the command as SIGPIPE; its bytes are dropped.
 */
#include "session.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent-wire.h"
#include "cleanup.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "str.h"
#include "terminal.h"

struct out_stream {
	int fd;      /* borrowed */
	bool broken; /* nobody reads: drop */
	bool eof;
	uint64_t received, written; /* offsets; the difference is in buf */
	uint8_t buf[AGENT_WIRE_WINDOW];
};

struct session {
	int fd;      /* owned */
	int signals; /* owned */
	const struct session_command *command;
	struct out_stream out[3]; /* 1 and 2 are used */
	uint64_t in_sent, in_acked;
	bool in_ended;
	bool started, ended;
	struct session_result *result; /* borrowed */
	uint8_t buf[AGENT_WIRE_FRAME_MAX];
	size_t len;
};

static void session_end(struct session *s, enum session_source source, int code, const char *text)
{
	if (s->ended)
		return;
	s->ended = true;
	s->result->source = source;
	s->result->code = code;
	snprintf(s->result->text, sizeof s->result->text, "%s", str_or(text, ""));
}

static void session_lost(struct session *s, const char *text)
{
	session_end(s, SESSION_LOST, UVMS_EXIT_UVMS, text);
}

static void session_send(struct session *s, const struct agent_wire_msg *m)
{
	uint8_t *frame = malloc(AGENT_WIRE_FRAME_MAX);
	ssize_t n = frame ? agent_wire_encode(m, frame, AGENT_WIRE_FRAME_MAX) : -ENOMEM;
	int r;

	if (n == -ENOBUFS || n == -EINVAL) {
		session_end(s, SESSION_UVMS, UVMS_EXIT_UVMS,
			"the command, its environment or its user cannot be sent: too large or "
			"odd");
	} else if (n < 0) {
		session_lost(s, strerror((int)-n));
	} else {
		r = fd_write_all(s->fd, frame, (size_t)n);
		if (r < 0)
			session_lost(s, strerror(-r));
	}
	free(frame);
}

static void session_send_exec(struct session *s)
{
	const struct session_command *c = s->command;
	struct agent_wire_msg m = { .type = AGENT_WIRE_EXEC,
		.exec = { .flags = (c->tty ? AGENT_EXEC_TTY : 0) |
				   (c->stdin_open ? AGENT_EXEC_STDIN : 0) |
				   (c->is_main ? AGENT_EXEC_MAIN : 0),
			.user = wire_str_from(c->user),
			.workdir = wire_str_from(c->workdir),
			.term = wire_str_from(c->tty ? getenv("TERM") : NULL),
			.argv = wire_strv_from(c->argv),
			.env = wire_strv_from(c->env) } };

	if (getrandom(m.exec.id, sizeof m.exec.id, 0) != sizeof m.exec.id)
		memset(m.exec.id, 1, sizeof m.exec.id);
	if (c->tty)
		terminal_size(&m.exec.rows, &m.exec.cols);
	session_send(s, &m);
}

static void session_signal(struct session *s, int signo)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_SIGNAL,
		.signal = { .signo = (uint8_t)signo } };

	if (s->started)
		session_send(s, &m);
}

static void session_winsize(struct session *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_WINSIZE };

	terminal_size(&m.winsize.rows, &m.winsize.cols);
	if (s->command->tty && m.winsize.rows)
		session_send(s, &m);
}

static void session_on_data(struct session *s, const struct agent_wire_msg *m)
{
	struct out_stream *o = &s->out[m->data.stream];
	uint64_t held = o->received - o->written;

	if (m->data.stream == AGENT_STDIN || m->data.offset != o->received ||
		m->data.n_bytes > AGENT_WIRE_WINDOW - held) {
		session_lost(s, "the guest broke the protocol");
		return;
	}
	/* the buffer is one window long, and written bytes are moved out at once */
	memcpy(o->buf + held, m->data.bytes, m->data.n_bytes);
	o->received += m->data.n_bytes;
}

static void session_on_exit(struct session *s, const struct agent_wire_msg *m)
{
	struct agent_wire_msg ack = { .type = AGENT_WIRE_EXIT_ACK };

	session_send(s, &ack);
	if (m->exit.kind == AGENT_EXITED)
		session_end(s, SESSION_CMD, (int)m->exit.code, NULL);
	else
		session_end(s, SESSION_SIGNAL, 128 + (int)m->exit.code, NULL);
}

static void session_on_failed(struct session *s, const struct agent_wire_msg *m)
{
	char text[200];

	str_escape(text, sizeof text, m->failed.text.s, m->failed.text.len, NULL);
	session_end(s, SESSION_UVMS, m->failed.code, text);
}

static void session_on_message(struct session *s, const struct agent_wire_msg *m)
{
	switch (m->type) {
	case AGENT_WIRE_STARTED:
		s->started = true;
		session_winsize(s);
		break;
	case AGENT_WIRE_FAILED: session_on_failed(s, m); break;
	case AGENT_WIRE_DATA: session_on_data(s, m); break;
	case AGENT_WIRE_EOF: s->out[m->eof.stream].eof = true; break;
	case AGENT_WIRE_ACK:
		if (m->ack.offset >= s->in_acked && m->ack.offset <= s->in_sent)
			s->in_acked = m->ack.offset;
		break;
	case AGENT_WIRE_EXIT: session_on_exit(s, m); break;
	default: session_lost(s, "the guest broke the protocol");
	}
}

static bool session_output_is_pending(const struct session *s)
{
	return s->out[1].received > s->out[1].written || s->out[2].received > s->out[2].written;
}

static void session_read(struct session *s)
{
	ssize_t n = read(s->fd, s->buf + s->len, sizeof s->buf - s->len);
	size_t at = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		session_lost(s, "the guest or its connection ended");
		return;
	}
	s->len += (size_t)n;
	while (!s->ended) {
		struct agent_wire_msg m;

		n = agent_wire_decode(s->buf + at, s->len - at, &m);
		if (n < 0)
			session_lost(s, "the guest broke the protocol");
		if (n <= 0)
			break;
		session_on_message(s, &m);
		at += (size_t)n;
	}
	s->len -= at;
	memmove(s->buf, s->buf + at, s->len);
}

static void session_write(struct session *s, uint8_t stream)
{
	struct out_stream *o = &s->out[stream];
	struct agent_wire_msg ack = { .type = AGENT_WIRE_ACK, .ack = { .stream = stream } };
	size_t held = (size_t)(o->received - o->written);
	ssize_t n = (ssize_t)held;

	if (!o->broken)
		n = write(o->fd, o->buf, held > PIPE_BUF ? PIPE_BUF : held);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		o->broken = true;
		session_signal(s, SIGPIPE);
		return;
	}
	memmove(o->buf, o->buf + n, held - (size_t)n);
	o->written += (uint64_t)n;
	ack.ack.offset = o->written;
	/* an acknowledgement for every quarter of the window, and when all is out */
	if (!s->ended && (o->written == o->received || held > AGENT_WIRE_WINDOW / 2))
		session_send(s, &ack);
}

static void session_read_stdin(struct session *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_DATA,
		.data = { .stream = AGENT_STDIN, .offset = s->in_sent } };
	uint64_t room = AGENT_WIRE_WINDOW - (s->in_sent - s->in_acked);
	uint8_t bytes[AGENT_WIRE_DATA_MAX];
	ssize_t n = read(STDIN_FILENO, bytes, room < sizeof bytes ? (size_t)room : sizeof bytes);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		m = (struct agent_wire_msg){ .type = AGENT_WIRE_EOF,
			.eof = { .stream = AGENT_STDIN, .offset = s->in_sent } };
		s->in_ended = true;
	} else {
		m.data.bytes = bytes;
		m.data.n_bytes = (uint32_t)n;
		s->in_sent += (uint64_t)n;
	}
	session_send(s, &m);
}

static void session_read_signal(struct session *s)
{
	struct signalfd_siginfo si;

	if (read(s->signals, &si, sizeof si) != sizeof si)
		return;
	if (si.ssi_signo == SIGWINCH)
		session_winsize(s);
	else
		session_signal(s, (int)si.ssi_signo);
}

static void session_turn(struct session *s)
{
	bool room = s->in_sent - s->in_acked < AGENT_WIRE_WINDOW;
	bool want_in = s->command->stdin_open && s->started && !s->in_ended && room && !s->ended;
	struct pollfd p[] = {
		{ .fd = s->ended ? -1 : s->fd, .events = POLLIN },
		{ .fd = want_in ? STDIN_FILENO : -1, .events = POLLIN },
		{ .fd = s->out[1].received > s->out[1].written ? s->out[1].fd : -1,
			.events = POLLOUT },
		{ .fd = s->out[2].received > s->out[2].written ? s->out[2].fd : -1,
			.events = POLLOUT },
		{ .fd = s->signals, .events = POLLIN },
	};

	if (poll(p, ARRAY_SIZE(p), -1) < 0)
		return;
	if (p[2].revents)
		session_write(s, AGENT_STDOUT);
	if (p[3].revents)
		session_write(s, AGENT_STDERR);
	if (p[4].revents)
		session_read_signal(s);
	if (p[0].revents)
		session_read(s);
	if (p[1].revents && !s->ended)
		session_read_stdin(s);
}

static int session_open_signals(void)
{
	static const int passed[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2,
		SIGWINCH };
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
		sigaddset(&set, passed[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

void session_run_consume(int fd, const struct session_command *c, struct session_result *ret)
{
	struct session *s = calloc(1, sizeof *s);

	*ret = (struct session_result){ .source = SESSION_LOST, .code = UVMS_EXIT_UVMS };
	if (!s) {
		close(fd);
		return;
	}
	s->fd = fd;
	s->command = c;
	s->result = ret;
	s->out[1].fd = STDOUT_FILENO;
	s->out[2].fd = STDERR_FILENO;
	s->signals = session_open_signals();
	if (c->tty)
		(void)terminal_raw();
	session_send_exec(s);
	/* what was received is written out, even when the end has come */
	while (!s->ended || session_output_is_pending(s))
		session_turn(s);
	terminal_restore();
	fd_close(s->signals);
	fd_close(s->fd);
	free(s);
}

int session_report(const char *vm_name, const struct session_result *r)
{
	if (r->source == SESSION_UVMS)
		fail_say("%s: %s", vm_name, r->text);
	else if (r->source == SESSION_LOST)
		fail(0, r->text, NULL, "%s: the command was lost", vm_name);
	return r->code;
}
