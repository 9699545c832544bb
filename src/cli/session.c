/*
 * Theory of operation. One poll loop over the connection, stdin, stdout, stderr and a signalfd. What
 * the guest sends is held in a buffer of one window per stream and written as the reader takes it (in
 * pieces of at most PIPE_BUF after POLLOUT, so that a blocking descriptor that others share never
 * blocks us); bytes are acknowledged once written. stdin is read only while the guest's window has
 * room, and kept until it is acknowledged. A reader that is gone (EPIPE) is told to the command as
 * SIGPIPE; its bytes are dropped.
 *
 * A connection that is lost is replaced (session-link.h) and the session attached again: what the
 * other side has not received goes out once more from its offset, and so do signals, which are
 * numbered. Everything else goes on meanwhile. An EXEC that never arrived is sent again.
 *
 * A guest that does not answer must not hold its caller: a signal that is to end the command and that
 * the agent has not acknowledged after SIGNAL_USEC, or SIGNAL_AGAIN_USEC before the next one, ends us.
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
#include <sys/param.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent-wire.h"
#include "cleanup.h"
#include "clock.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "session-link.h"
#include "str.h"
#include "terminal.h"

#define SIGNALS_MAX       16
#define SIGNAL_USEC       (UINT64_C(5) * 1000000)
#define SIGNAL_AGAIN_USEC (UINT64_C(1) * 1000000)

/* A signal that the agent has not acknowledged. */
struct pending_signal {
	uint32_t number;
	uint8_t signo;
	uint64_t since_usec;
};

struct out_stream {
	int fd;      /* borrowed */
	bool broken; /* nobody reads: drop */
	bool is_file;
	uint64_t received, written, told; /* told: acknowledged; [written, received) is in buf */
	uint8_t buf[AGENT_WIRE_WINDOW];   /* offset N is at N % that */
};

struct in_stream {
	uint64_t acked, sent, got;      /* [acked, got) is in buf; sent: on this connection */
	bool ended, end_sent;           /* ended: EOF was read */
	uint8_t buf[AGENT_WIRE_WINDOW]; /* offset N is at N % that */
};

struct session {
	struct session_link link;
	int signals; /* owned */
	const struct session_command *command;
	uint8_t id[AGENT_WIRE_ID];
	struct out_stream out[3]; /* 1 and 2 are used */
	struct in_stream in;
	struct pending_signal pending[SIGNALS_MAX];
	size_t n_pending;
	uint32_t signal_number; /* of the last that was asked for */
	bool attached;          /* this connection carries the session */
	bool exec_again;        /* the agent never saw EXEC */
	bool started, ended, abandoned;
	struct session_result *result; /* borrowed */
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

static void session_broken(struct session *s)
{
	session_lost(s, "the guest broke the protocol");
}

static void session_send(struct session *s, const struct agent_wire_msg *m)
{
	if (session_link_send(&s->link, m) < 0)
		session_end(s, SESSION_UVMS, UVMS_EXIT_UVMS,
			"the command, its environment or its user cannot be sent: too large or "
			"odd");
}

/* ---- what is said first on a connection ---- */

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

	memcpy(m.exec.id, s->id, sizeof m.exec.id);
	if (c->tty)
		terminal_size(&m.exec.rows, &m.exec.cols);
	s->attached = true;
	session_send(s, &m);
}

static void session_send_attach(struct session *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_ATTACH,
		.attach = { .offsets = { 0, s->out[1].received, s->out[2].received } } };

	memcpy(m.attach.id, s->id, sizeof m.attach.id);
	session_send(s, &m);
}

/* ---- signals and window size ---- */

static void session_send_signal(struct session *s, const struct pending_signal *p)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_SIGNAL_N,
		.signal_n = { .number = p->number, .signo = p->signo } };

	if (s->attached && s->started)
		session_send(s, &m);
}

static void session_signal(struct session *s, int signo)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_SIGNAL,
		.signal = { .signo = (uint8_t)signo } };
	struct pending_signal *p = &s->pending[s->n_pending];

	if (s->link.version < AGENT_WIRE_VERSION_ATTACH) {
		if (s->started)
			session_send(s, &m);
		return;
	}
	if (s->n_pending == SIGNALS_MAX)
		return; /* as many wait as there are kinds: the command would not count them either */
	*p = (struct pending_signal){ ++s->signal_number, (uint8_t)signo,
		clock_usec(CLOCK_MONOTONIC) };
	s->n_pending++;
	session_send_signal(s, p);
}

static void session_signals_delivered(struct session *s, uint32_t last)
{
	size_t n = 0;

	while (n < s->n_pending && s->pending[n].number <= last)
		n++;
	s->n_pending -= n;
	memmove(s->pending, s->pending + n, s->n_pending * sizeof s->pending[0]);
}

static void session_winsize(struct session *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_WINSIZE };

	terminal_size(&m.winsize.rows, &m.winsize.cols);
	if (s->command->tty && m.winsize.rows && s->attached && s->started)
		session_send(s, &m);
}

static bool signal_is_an_end(int signo)
{
	return signo == SIGINT || signo == SIGTERM || signo == SIGHUP || signo == SIGQUIT;
}

/* The oldest signal that is to end the command and that the agent has not answered; NULL: none. */
static const struct pending_signal *session_unanswered(const struct session *s)
{
	for (size_t i = 0; i < s->n_pending; i++)
		if (signal_is_an_end(s->pending[i].signo))
			return &s->pending[i];
	return NULL;
}

static uint64_t session_signal_deadline(const struct session *s)
{
	const struct pending_signal *p = session_unanswered(s);

	return p && !s->ended ? p->since_usec + SIGNAL_USEC : UINT64_MAX;
}

static void session_abandon(struct session *s, int signo)
{
	char text[100];

	snprintf(text, sizeof text, "%s; ended by SIG%s",
		s->ended ? "nobody takes its output" : "the guest does not answer",
		str_or(sigabbrev_np(signo), "?"));
	s->ended = false;
	session_end(s, SESSION_LOST, 128 + signo, text);
	s->abandoned = s->result->abandoned = true;
}

static void session_check_signals(struct session *s)
{
	if (clock_usec(CLOCK_MONOTONIC) >= session_signal_deadline(s))
		session_abandon(s, session_unanswered(s)->signo);
}

static void session_read_signal(struct session *s)
{
	const struct pending_signal *p = session_unanswered(s);
	struct signalfd_siginfo si;
	int signo;

	if (read(s->signals, &si, sizeof si) != sizeof si)
		return;
	signo = (int)si.ssi_signo;
	if (signo == SIGWINCH)
		session_winsize(s);
	else if (!signal_is_an_end(signo))
		session_signal(s, signo);
	else if (s->ended) /* only its output is left, which nobody takes */
		session_abandon(s, signo);
	else if (p && clock_usec(CLOCK_MONOTONIC) - p->since_usec >= SIGNAL_AGAIN_USEC)
		session_abandon(s, signo);
	else
		session_signal(s, signo);
}

/* ---- input ---- */

static void in_send(struct session *s)
{
	struct in_stream *in = &s->in;

	while (in->sent < in->got && session_link_has_room(&s->link)) {
		size_t at = in->sent % AGENT_WIRE_WINDOW;
		size_t n = MIN((size_t)(in->got - in->sent), AGENT_WIRE_WINDOW - at);

		n = MIN(n, (size_t)AGENT_WIRE_DATA_MAX);
		session_send(
			s, &(struct agent_wire_msg){ .type = AGENT_WIRE_DATA,
				   .data = { AGENT_STDIN, in->sent, in->buf + at, (uint32_t)n } });
		in->sent += n;
	}
	if (in->ended && !in->end_sent && in->sent == in->got) {
		in->end_sent = true;
		session_send(s, &(struct agent_wire_msg){
					.type = AGENT_WIRE_EOF, .eof = { AGENT_STDIN, in->got } });
	}
}

static void in_read(struct session *s)
{
	struct in_stream *in = &s->in;
	size_t at = in->got % AGENT_WIRE_WINDOW;
	size_t room = AGENT_WIRE_WINDOW - (size_t)(in->got - in->acked);
	ssize_t n = read(STDIN_FILENO, in->buf + at, MIN(room, AGENT_WIRE_WINDOW - at));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		in->ended = true;
	else
		in->got += (uint64_t)n;
}

static bool in_wants(const struct session *s)
{
	return s->command->stdin_open && s->started && !s->ended && !s->in.ended &&
	       s->in.got - s->in.acked < AGENT_WIRE_WINDOW;
}

/* ---- output ---- */

static void out_ack(struct session *s, uint8_t stream)
{
	struct out_stream *o = &s->out[stream];

	o->told = o->written;
	if (s->attached && !s->ended)
		session_send(s, &(struct agent_wire_msg){
					.type = AGENT_WIRE_ACK, .ack = { stream, o->told } });
}

static bool out_is_pending(const struct out_stream *o)
{
	return o->received > o->written;
}

static void out_write(struct session *s, uint8_t stream)
{
	struct out_stream *o = &s->out[stream];
	size_t at = o->written % AGENT_WIRE_WINDOW, held = (size_t)(o->received - o->written);
	ssize_t n = (ssize_t)held;

	held = MIN(held, AGENT_WIRE_WINDOW - at);
	if (!o->broken)
		n = write(o->fd, o->buf + at, o->is_file ? held : MIN(held, (size_t)PIPE_BUF));
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n < 0) {
		o->broken = true;
		session_signal(s, SIGPIPE);
		return;
	}
	o->written += (uint64_t)n;
	if (!out_is_pending(o) || o->written - o->told >= AGENT_WIRE_WINDOW / 4)
		out_ack(s, stream);
}

static void session_on_data(struct session *s, const struct agent_wire_msg *m)
{
	struct out_stream *o = &s->out[m->data.stream];
	size_t at = o->received % AGENT_WIRE_WINDOW, n = m->data.n_bytes;
	size_t first = MIN(n, AGENT_WIRE_WINDOW - at);

	if (m->data.stream == AGENT_STDIN || m->data.offset != o->received ||
		n > AGENT_WIRE_WINDOW - (o->received - o->written)) {
		session_broken(s);
		return;
	}
	memcpy(o->buf + at, m->data.bytes, first);
	memcpy(o->buf, (const uint8_t *)m->data.bytes + first, n - first);
	o->received += n;
}

/* ---- what the agent says ---- */

static void session_on_exit(struct session *s, const struct agent_wire_msg *m)
{
	struct agent_wire_msg ack = { .type = AGENT_WIRE_EXIT_ACK };

	session_send(s, &ack);
	if (m->exit.kind == AGENT_EXITED)
		session_end(s, SESSION_CMD, (int)m->exit.code, NULL);
	else
		session_end(s, SESSION_SIGNAL, 128 + (int)m->exit.code, NULL);
}

/* A refusal to attach; true: it is tried again. */
static bool session_try_again(struct session *s, uint32_t error)
{
	if (s->exec_again && error == EEXIST)
		s->exec_again = false; /* it had arrived after all */
	else if (!s->attached && !s->started && error == ENOENT)
		s->exec_again = true;
	else
		return false;
	s->attached = false;
	session_link_drop(&s->link);
	return true;
}

static void session_on_failed(struct session *s, const struct agent_wire_msg *m)
{
	char text[200];

	if (session_try_again(s, m->failed.error))
		return;
	str_escape(text, sizeof text, m->failed.text.s, m->failed.text.len, NULL);
	if (s->attached)
		session_end(s, SESSION_UVMS, m->failed.code, text);
	else
		session_lost(s, text);
}

static void session_on_started(struct session *s)
{
	s->started = true;
	session_link_settle(&s->link);
	session_winsize(s);
	for (size_t i = 0; i < s->n_pending; i++)
		session_send_signal(s, &s->pending[i]);
}

static void session_on_attached(struct session *s, const struct agent_wire_msg *m)
{
	struct in_stream *in = &s->in;

	if (s->attached || m->attached.received < in->acked || m->attached.received > in->got) {
		session_broken(s);
		return;
	}
	s->attached = true;
	in->sent = m->attached.received;
	in->end_sent = m->attached.flags & AGENT_ATTACHED_STDIN_END;
	session_signals_delivered(s, m->attached.signal_last);
	session_link_settle(&s->link);
	for (uint8_t i = AGENT_STDOUT; i < AGENT_STREAMS; i++)
		out_ack(s, i);
	if (m->attached.flags & AGENT_ATTACHED_STARTED)
		session_on_started(s);
}

static void session_on_ack(struct session *s, const struct agent_wire_msg *m)
{
	if (m->ack.stream != AGENT_STDIN || m->ack.offset < s->in.acked ||
		m->ack.offset > s->in.sent)
		session_broken(s);
	else
		s->in.acked = m->ack.offset;
}

static void session_on_message(struct session *s, const struct agent_wire_msg *m)
{
	if (!s->attached && m->type != AGENT_WIRE_ATTACHED && m->type != AGENT_WIRE_FAILED) {
		session_broken(s);
		return;
	}
	switch (m->type) {
	case AGENT_WIRE_STARTED: session_on_started(s); break;
	case AGENT_WIRE_ATTACHED: session_on_attached(s, m); break;
	case AGENT_WIRE_FAILED: session_on_failed(s, m); break;
	case AGENT_WIRE_DATA: session_on_data(s, m); break;
	case AGENT_WIRE_EOF: break; /* EXIT says what there is to know */
	case AGENT_WIRE_ACK: session_on_ack(s, m); break;
	case AGENT_WIRE_SIGNAL_ACK: session_signals_delivered(s, m->signal_ack.number); break;
	case AGENT_WIRE_EXIT: session_on_exit(s, m); break;
	default: session_broken(s);
	}
}

static void session_read_frames(struct session *s)
{
	struct agent_wire_msg m;
	ssize_t n = 1;

	while (!s->ended && s->link.fd >= 0 && n > 0) {
		n = session_link_next(&s->link, &m);
		if (n > 0)
			session_on_message(s, &m);
	}
	if (n < 0)
		session_broken(s);
}

static void session_link_event(struct session *s, short revents)
{
	switch (session_link_turn(&s->link, revents)) {
	case SESSION_LINK_NOTHING: break;
	case SESSION_LINK_FRAMES: session_read_frames(s); break;
	case SESSION_LINK_LOST: s->attached = false; break;
	case SESSION_LINK_GONE: session_lost(s, s->link.text); break;
	case SESSION_LINK_OPENED:
		if (s->exec_again)
			session_send_exec(s);
		else
			session_send_attach(s);
	}
}

/* ---- the loop ---- */

static int session_wait_ms(const struct session *s)
{
	uint64_t until = MIN(session_signal_deadline(s),
		s->ended ? UINT64_MAX : session_link_deadline(&s->link));
	uint64_t now = clock_usec(CLOCK_MONOTONIC);

	if (until == UINT64_MAX)
		return -1;
	return until <= now ? 0 : (int)((until - now + 999) / 1000);
}

static struct pollfd out_poll(const struct out_stream *o)
{
	return (struct pollfd){ .fd = out_is_pending(o) ? o->fd : -1, .events = POLLOUT };
}

static void session_turn(struct session *s)
{
	struct pollfd p[] = {
		session_link_poll(&s->link),
		{ .fd = in_wants(s) ? STDIN_FILENO : -1, .events = POLLIN },
		out_poll(&s->out[1]),
		out_poll(&s->out[2]),
		{ .fd = s->signals, .events = POLLIN },
	};

	if (s->ended)
		p[0].fd = -1;
	if (poll(p, ARRAY_SIZE(p), session_wait_ms(s)) < 0)
		return;
	if (p[2].revents)
		out_write(s, AGENT_STDOUT);
	if (p[3].revents)
		out_write(s, AGENT_STDERR);
	if (p[4].revents)
		session_read_signal(s);
	session_check_signals(s);
	if (!s->ended)
		session_link_event(s, p[0].revents);
	if (p[1].revents && !s->ended)
		in_read(s);
	if (s->attached && s->started && !s->ended)
		in_send(s);
}

static int session_open_signals(sigset_t *ret_old)
{
	static const int passed[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2,
		SIGWINCH };
	sigset_t set;
	int fd;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(passed); i++)
		sigaddset(&set, passed[i]);
	sigprocmask(SIG_BLOCK, &set, ret_old);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

static bool is_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

static int session_init(struct session *s, const struct session_command *c, sigset_t *ret_old)
{
	if (getrandom(s->id, sizeof s->id, 0) != sizeof s->id)
		return -EIO;
	s->command = c;
	for (int i = AGENT_STDOUT; i < AGENT_STREAMS; i++) {
		s->out[i].fd = i;
		s->out[i].is_file = is_file(i);
	}
	s->signals = session_open_signals(ret_old);
	return s->signals < 0 ? s->signals : 0;
}

static void session_loop(struct session *s)
{
	if (s->command->tty)
		(void)terminal_raw();
	session_send_exec(s);
	/* what was received is written out, even when the end has come */
	while (!s->ended ||
		(!s->abandoned && (out_is_pending(&s->out[1]) || out_is_pending(&s->out[2]))))
		session_turn(s);
	terminal_restore();
}

void session_run_consume(
	int fd, uint32_t version, const struct session_command *c, struct session_result *ret)
{
	struct session *s = calloc(1, sizeof *s);
	sigset_t old;

	*ret = (struct session_result){ .source = SESSION_LOST, .code = UVMS_EXIT_UVMS };
	if (!s) {
		close(fd);
		return;
	}
	s->result = ret;
	session_link_init(&s->link, c->vm_name, fd, version);
	if (session_init(s, c, &old) == 0) {
		session_loop(s);
		sigprocmask(SIG_SETMASK, &old, NULL);
	}
	session_link_finish(&s->link, ret->source == SESSION_LOST);
	fd_close(s->signals);
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
