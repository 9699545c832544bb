#include "guest-session.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/param.h>
#include <sys/socket.h>

#define GRACE_MS  100  /* for descendants that hold the streams after the process's end */
#define HANGUP_MS 5000 /* SIGHUP to SIGKILL */
#define TTY_EOF   0x04

struct out_stream {
	struct guest_source source;
	int fd; /* owned */
	uint8_t index;
	uint64_t acked, sent, got; /* got: read from the process; [acked, got) is in buf */
	uint64_t drain_until;      /* offset up to which data was there when the process ended */
	bool ended;                /* EOF was read */
	uint8_t *buf;              /* owned; AGENT_WIRE_WINDOW bytes, offset N is at N % that */
};

struct in_stream {
	struct guest_source source;
	int fd; /* owned */
	uint64_t received, consumed;
	bool ended;     /* EOF was received */
	bool eof, dead; /* eof: and has to be passed on; dead: nobody reads it, data is dropped */
	uint8_t *buf;   /* owned; AGENT_WIRE_WINDOW bytes, offset N is at N % that */
};

enum session_state {
	SESSION_STARTING,
	SESSION_RUNNING,
	SESSION_DRAINING, /* the process has ended, output is left */
	SESSION_EXITED,   /* EXIT was sent */
};

struct guest_session {
	struct guest_proc proc;
	struct guest_timer timer;    /* of the state */
	struct guest_timer patience; /* without a connection: until it is given up */
	struct guest_loop *loop;     /* borrowed */
	struct guest_frames *frames; /* borrowed; NULL when lost */
	struct guest_session_owner owner;
	enum session_state state;
	bool is_main, hung_up;
	uint8_t id[AGENT_WIRE_ID];
	uint64_t lost_usec;
	uint32_t signal_last; /* number of the last SIGNAL_N */
	struct in_stream in;
	struct out_stream out[2]; /* stdout, stderr */
	siginfo_t ending;
};

static void session_send(struct guest_session *s, const struct agent_wire_msg *m)
{
	/* what could not be queued is missed by the host: it has to attach again */
	if (s->frames && guest_frames_send(s->frames, m) == -ENOMEM)
		shutdown(s->frames->fd, SHUT_RDWR);
}

static void session_over(struct guest_session *s)
{
	s->owner.over(s, s->owner.user);
}

static void session_timeout(struct guest_timer *t)
{
	session_over(GUEST_CONTAINER(t, struct guest_session, timer));
}

static void send_failed(struct guest_frames *f, uint8_t code, int error, const char *step)
{
	char text[128];

	snprintf(text, sizeof text, "%s: %s", step, strerror(error));
	guest_frames_send(f, &(struct agent_wire_msg){ .type = AGENT_WIRE_FAILED,
				     .failed = { code, (uint32_t)error, wire_str_from(text) } });
}

/* ---- output ---- */

static bool out_is_open(const struct out_stream *o)
{
	return o->fd >= 0;
}

static uint64_t out_window(const struct guest_session *s, const struct out_stream *o)
{
	if (s->frames && !guest_frames_has_room(s->frames))
		return 0;
	return AGENT_WIRE_WINDOW - (o->got - o->acked);
}

static void out_update(struct guest_session *s, struct out_stream *o)
{
	if (out_is_open(o))
		guest_source_set(&o->source, out_window(s, o) > 0 ? EPOLLIN : 0);
}

static void out_close(struct out_stream *o)
{
	guest_source_stop(&o->source);
	o->fd = fd_close(o->fd);
}

static void session_send_exit(struct guest_session *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_EXIT,
		.exit = { .kind = s->ending.si_code == CLD_EXITED ? AGENT_EXITED : AGENT_SIGNALED,
			.code = (uint32_t)s->ending.si_status & 0xff,
			.core = s->ending.si_code == CLD_DUMPED } };

	for (size_t i = 0; i < 2; i++)
		out_close(&s->out[i]);
	s->state = SESSION_EXITED;
	session_send(s, &m);
	guest_timer_arm(&s->timer, s->loop, AGENT_WIRE_KEEP_MS, session_timeout);
}

static void session_check_drained(struct guest_session *s)
{
	if (s->state == SESSION_DRAINING && !out_is_open(&s->out[0]) && !out_is_open(&s->out[1]))
		session_send_exit(s);
}

static void out_send_eof(struct guest_session *s, const struct out_stream *o)
{
	if (o->ended)
		session_send(s, &(struct agent_wire_msg){
					.type = AGENT_WIRE_EOF, .eof = { o->index, o->got } });
}

/* What the connection has not had yet. */
static void out_send(struct guest_session *s, struct out_stream *o)
{
	while (s->frames && o->sent < o->got) {
		size_t at = o->sent % AGENT_WIRE_WINDOW;
		size_t n = MIN(o->got - o->sent, (uint64_t)AGENT_WIRE_DATA_MAX);

		n = MIN(n, AGENT_WIRE_WINDOW - at);
		session_send(s, &(struct agent_wire_msg){ .type = AGENT_WIRE_DATA,
					.data = { o->index, o->sent, o->buf + at, (uint32_t)n } });
		o->sent += n;
	}
}

static void out_read(struct guest_session *s, struct out_stream *o)
{
	size_t at = o->got % AGENT_WIRE_WINDOW;
	size_t room = MIN(out_window(s, o), (uint64_t)AGENT_WIRE_DATA_MAX);
	ssize_t n = read(o->fd, o->buf + at, MIN(room, AGENT_WIRE_WINDOW - at));

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) { /* a TTY nobody has open any more gives EIO */
		out_close(o);
		o->ended = true;
		out_send_eof(s, o);
		session_check_drained(s);
		return;
	}
	o->got += (uint64_t)n;
	out_send(s, o);
	out_update(s, o);
}

static void out_event_stdout(struct guest_source *src, uint32_t events)
{
	struct guest_session *s = GUEST_CONTAINER(src, struct guest_session, out[0].source);

	if (out_window(s, &s->out[0]) > 0)
		out_read(s, &s->out[0]);
	else
		out_update(s, &s->out[0]);
}

static void out_event_stderr(struct guest_source *src, uint32_t events)
{
	struct guest_session *s = GUEST_CONTAINER(src, struct guest_session, out[1].source);

	if (out_window(s, &s->out[1]) > 0)
		out_read(s, &s->out[1]);
	else
		out_update(s, &s->out[1]);
}

static void session_grace(struct guest_timer *t)
{
	struct guest_session *s = GUEST_CONTAINER(t, struct guest_session, timer);

	for (size_t i = 0; i < 2; i++)
		if (out_is_open(&s->out[i]) && s->out[i].got < s->out[i].drain_until) {
			guest_timer_arm(t, s->loop, GRACE_MS, session_grace);
			return;
		}
	session_send_exit(s);
}

static void session_drain(struct guest_session *s)
{
	s->state = SESSION_DRAINING;
	for (size_t i = 0; i < 2; i++) {
		struct out_stream *o = &s->out[i];
		int pending = 0;

		if (out_is_open(o))
			ioctl(o->fd, FIONREAD, &pending);
		o->drain_until = o->got + (uint64_t)pending;
	}
	guest_timer_arm(&s->timer, s->loop, GRACE_MS, session_grace);
	session_check_drained(s);
}

/* ---- input ---- */

static size_t in_pending(const struct in_stream *in)
{
	return (size_t)(in->received - in->consumed);
}

static void in_close(struct in_stream *in)
{
	guest_source_stop(&in->source);
	in->fd = fd_close(in->fd);
	in->dead = true;
}

static void in_consume(struct guest_session *s, size_t n)
{
	struct in_stream *in = &s->in;

	in->consumed += n;
	session_send(s, &(struct agent_wire_msg){
				.type = AGENT_WIRE_ACK, .ack = { AGENT_STDIN, in->consumed } });
}

/* Writes what there is; at the stream's end closes it, or types ^D on a TTY. */
static void in_write(struct guest_session *s)
{
	struct in_stream *in = &s->in;

	while (!in->dead && in_pending(in) > 0) {
		size_t at = in->consumed % AGENT_WIRE_WINDOW;
		size_t n = MIN(in_pending(in), AGENT_WIRE_WINDOW - at);
		ssize_t w = write(in->fd, in->buf + at, n);

		if (w < 0 && (errno == EAGAIN || errno == EINTR))
			break;
		if (w < 0)
			in_close(in);
		else
			in_consume(s, (size_t)w);
	}
	if (in->dead && in_pending(in) > 0)
		in_consume(s, in_pending(in));
	if (!in->dead && in->eof && in_pending(in) == 0) {
		if (!s->proc.tty)
			in_close(in);
		else if (write(in->fd, &(char){ TTY_EOF }, 1) == 1)
			in->eof = false;
	}
	if (!in->dead)
		guest_source_set(&in->source, in_pending(in) > 0 || in->eof ? EPOLLOUT : 0);
}

static void in_event(struct guest_source *src, uint32_t events)
{
	in_write(GUEST_CONTAINER(src, struct guest_session, in.source));
}

static int in_data(struct guest_session *s, const struct agent_wire_msg *m)
{
	struct in_stream *in = &s->in;
	size_t at = in->received % AGENT_WIRE_WINDOW, n = m->data.n_bytes;
	size_t first = MIN(n, AGENT_WIRE_WINDOW - at);

	if (m->data.stream != AGENT_STDIN || !in->buf || in->ended ||
		m->data.offset != in->received || n > AGENT_WIRE_WINDOW - in_pending(in))
		return -EBADMSG;
	memcpy(in->buf + at, m->data.bytes, first);
	memcpy(in->buf, (const uint8_t *)m->data.bytes + first, n - first);
	in->received += n;
	if (s->state != SESSION_STARTING)
		in_write(s);
	return 0;
}

static int in_eof(struct guest_session *s, const struct agent_wire_msg *m)
{
	if (m->eof.stream != AGENT_STDIN || !s->in.buf || s->in.ended ||
		m->eof.offset != s->in.received)
		return -EBADMSG;
	s->in.ended = s->in.eof = true;
	if (s->state != SESSION_STARTING)
		in_write(s);
	return 0;
}

/* ---- process ---- */

static void session_started(struct guest_proc *p)
{
	struct guest_session *s = GUEST_CONTAINER(p, struct guest_session, proc);

	s->state = SESSION_RUNNING;
	session_send(s, &(struct agent_wire_msg){ .type = AGENT_WIRE_STARTED,
				.started = { (uint32_t)p->started_pid } });
	for (size_t i = 0; i < 2; i++)
		out_update(s, &s->out[i]);
	if (s->in.buf)
		in_write(s);
}

static void session_failed(struct guest_proc *p, uint8_t code, int error, const char *step)
{
	struct guest_session *s = GUEST_CONTAINER(p, struct guest_session, proc);

	if (s->frames)
		send_failed(s->frames, code, error, step);
	session_over(s);
}

static void session_exited(struct guest_proc *p, const siginfo_t *ending)
{
	struct guest_session *s = GUEST_CONTAINER(p, struct guest_session, proc);

	s->ending = *ending;
	if (s->hung_up)
		session_over(s);
	else
		session_drain(s);
}

static void session_take_streams(struct guest_session *s)
{
	void (*fns[2])(struct guest_source *, uint32_t) = { out_event_stdout, out_event_stderr };
	int *fds[2] = { &s->proc.stdout_fd, &s->proc.stderr_fd };

	for (size_t i = 0; i < 2; i++) {
		s->out[i].index = (uint8_t)(AGENT_STDOUT + i);
		s->out[i].fd = TAKE_FD(*fds[i]);
		if (out_is_open(&s->out[i]))
			guest_source_init(&s->out[i].source, s->loop, s->out[i].fd, fns[i]);
	}
	s->in.fd = TAKE_FD(s->proc.stdin_fd);
	if (s->in.fd >= 0)
		guest_source_init(&s->in.source, s->loop, s->in.fd, in_event);
}

static int session_buffers(struct guest_session *s, const struct guest_proc_spec *spec)
{
	if (spec->tty || spec->with_stdin)
		s->in.buf = malloc(AGENT_WIRE_WINDOW);
	s->out[0].buf = malloc(AGENT_WIRE_WINDOW);
	if (!spec->tty)
		s->out[1].buf = malloc(AGENT_WIRE_WINDOW);
	if (((spec->tty || spec->with_stdin) && !s->in.buf) || !s->out[0].buf ||
		(!spec->tty && !s->out[1].buf))
		return -ENOMEM;
	return 0;
}

static int session_start(struct guest_session *s, const struct agent_wire_msg *m,
	struct guest_reaper *reaper, const char **ret_step)
{
	struct guest_proc_spec spec = {
		.user = m->exec.user,
		.workdir = m->exec.workdir,
		.term = m->exec.term,
		.argv = m->exec.argv,
		.env = m->exec.env,
		.tty = m->exec.flags & AGENT_EXEC_TTY,
		.with_stdin = m->exec.flags & AGENT_EXEC_STDIN,
		.main = m->exec.flags & AGENT_EXEC_MAIN,
		.rows = m->exec.rows,
		.cols = m->exec.cols,
	};
	int r;

	*ret_step = "memory";
	r = session_buffers(s, &spec);
	if (r < 0)
		return r;
	s->proc.on_started = session_started;
	s->proc.on_failed = session_failed;
	s->proc.on_exit = session_exited;
	r = guest_proc_start(&s->proc, &spec, s->loop, reaper, ret_step);
	if (r == 0)
		session_take_streams(s);
	return r;
}

int guest_session_create(const struct agent_wire_msg *m, struct guest_frames *frames,
	struct guest_loop *l, struct guest_reaper *reaper, const struct guest_session_owner *owner,
	struct guest_session **ret)
{
	struct guest_session *s = calloc(1, sizeof *s);
	const char *step = "memory";
	int r;

	if (!s)
		return -ENOMEM;
	s->loop = l;
	s->frames = frames;
	s->owner = *owner;
	s->is_main = m->exec.flags & AGENT_EXEC_MAIN;
	memcpy(s->id, m->exec.id, sizeof s->id);
	s->in.fd = s->out[0].fd = s->out[1].fd = -EBADF;
	r = session_start(s, m, reaper, &step);
	if (r < 0) {
		send_failed(frames, 125, -r, step);
		guest_session_destroy(s);
		return r;
	}
	*ret = s;
	return 0;
}

void guest_session_destroy(struct guest_session *s)
{
	if (!s)
		return;
	guest_timer_stop(&s->timer);
	guest_timer_stop(&s->patience);
	in_close(&s->in);
	for (size_t i = 0; i < 2; i++) {
		out_close(&s->out[i]);
		free(s->out[i].buf);
	}
	guest_proc_finish(&s->proc);
	free(s->in.buf);
	free(s);
}

/* ---- requests ---- */

static int session_ack(struct guest_session *s, const struct agent_wire_msg *m)
{
	struct out_stream *o;

	if (m->ack.stream == AGENT_STDIN)
		return -EBADMSG;
	o = &s->out[m->ack.stream - AGENT_STDOUT];
	if (m->ack.offset < o->acked || m->ack.offset > o->sent)
		return -EBADMSG;
	o->acked = m->ack.offset;
	if (s->state != SESSION_STARTING)
		out_update(s, o);
	return 0;
}

/* Each number once: what comes again after ATTACH is only answered. */
static int session_signal_n(struct guest_session *s, const struct agent_wire_msg *m)
{
	if (m->signal_n.number > s->signal_last + 1 || s->state == SESSION_STARTING)
		return -EBADMSG;
	if (m->signal_n.number == s->signal_last + 1) {
		s->signal_last++;
		guest_proc_signal(&s->proc, m->signal_n.signo, s->out[0].fd);
	}
	session_send(s, &(struct agent_wire_msg){
				.type = AGENT_WIRE_SIGNAL_ACK, .signal_ack = { s->signal_last } });
	return 0;
}

static int session_winsize(struct guest_session *s, const struct agent_wire_msg *m)
{
	struct winsize ws = { .ws_row = m->winsize.rows, .ws_col = m->winsize.cols };

	if (s->proc.tty && s->out[0].fd >= 0)
		ioctl(s->out[0].fd, TIOCSWINSZ, &ws);
	return 0;
}

int guest_session_message(struct guest_session *s, const struct agent_wire_msg *m)
{
	switch (m->type) {
	case AGENT_WIRE_DATA: return in_data(s, m);
	case AGENT_WIRE_EOF: return in_eof(s, m);
	case AGENT_WIRE_ACK: return session_ack(s, m);
	case AGENT_WIRE_WINSIZE: return session_winsize(s, m);
	case AGENT_WIRE_SIGNAL:
		guest_proc_signal(&s->proc, m->signal.signo, s->out[0].fd);
		return 0;
	case AGENT_WIRE_SIGNAL_N: return session_signal_n(s, m);
	case AGENT_WIRE_EXIT_ACK:
		if (s->state != SESSION_EXITED)
			return -EBADMSG;
		session_over(s);
		return 0;
	default: return -EBADMSG;
	}
}

void guest_session_room(struct guest_session *s)
{
	if (s->state == SESSION_STARTING)
		return;
	for (size_t i = 0; i < 2; i++)
		out_update(s, &s->out[i]);
}

/* ---- without a connection ---- */

static void session_kill(struct guest_timer *t)
{
	struct guest_session *s = GUEST_CONTAINER(t, struct guest_session, timer);

	guest_proc_signal(&s->proc, SIGKILL, -EBADF);
}

void guest_session_hangup(struct guest_session *s)
{
	s->frames = NULL;
	s->hung_up = true;
	guest_timer_stop(&s->patience);
	guest_proc_signal(&s->proc, SIGHUP, -EBADF);
	if (s->state == SESSION_DRAINING || s->state == SESSION_EXITED || s->is_main) {
		session_over(s);
		return;
	}
	in_close(&s->in);
	for (size_t i = 0; i < 2; i++)
		out_close(&s->out[i]);
	guest_timer_arm(&s->timer, s->loop, HANGUP_MS, session_kill);
}

static bool session_has_ended(const struct guest_session *s)
{
	return s->state == SESSION_DRAINING || s->state == SESSION_EXITED;
}

static void session_impatient(struct guest_timer *t)
{
	struct guest_session *s = GUEST_CONTAINER(t, struct guest_session, patience);
	uint64_t waited_ms = (guest_loop_now_usec() - s->lost_usec) / 1000;
	uint64_t more_ms = s->owner.patience(s->lost_usec, s->owner.user);

	if (session_has_ended(s) && !s->is_main)
		more_ms = AGENT_WIRE_KEEP_MS;
	if (waited_ms >= AGENT_WIRE_KEEP_MS)
		more_ms = 0;
	if (more_ms == 0)
		guest_session_hangup(s);
	else
		guest_timer_arm(&s->patience, s->loop, MIN(more_ms, AGENT_WIRE_KEEP_MS - waited_ms),
			session_impatient);
}

void guest_session_detach(struct guest_session *s, const struct guest_session_owner *owner)
{
	s->owner = *owner;
	s->frames = NULL;
	s->lost_usec = guest_loop_now_usec();
	guest_timer_arm(&s->patience, s->loop, AGENT_WIRE_GRACE_MS, session_impatient);
	if (s->state == SESSION_EXITED)
		guest_timer_arm(&s->timer, s->loop, AGENT_WIRE_KEEP_MS, session_timeout);
	guest_session_room(s);
}

static bool attach_fits(const struct guest_session *s, const struct agent_wire_msg *m)
{
	for (size_t i = 0; i < 2; i++) {
		uint64_t offset = m->attach.offsets[AGENT_STDOUT + i];

		if (offset < s->out[i].acked || offset > s->out[i].got)
			return false;
	}
	return m->attach.offsets[AGENT_STDIN] == 0;
}

static void attach_send(struct guest_session *s)
{
	session_send(s, &(struct agent_wire_msg){ .type = AGENT_WIRE_ATTACHED,
				.attached = { .flags = (s->state != SESSION_STARTING
								       ? AGENT_ATTACHED_STARTED
								       : 0) |
						       (s->in.ended ? AGENT_ATTACHED_STDIN_END : 0),
					.pid = (uint32_t)s->proc.started_pid,
					.received = s->in.received,
					.signal_last = s->signal_last } });
	if (s->in.buf)
		in_consume(s, 0);
	for (size_t i = 0; i < 2; i++) {
		out_send(s, &s->out[i]);
		out_send_eof(s, &s->out[i]);
	}
	if (s->state == SESSION_EXITED)
		session_send_exit(s);
}

int guest_session_attach(struct guest_session *s, const struct agent_wire_msg *m,
	struct guest_frames *frames, const struct guest_session_owner *owner)
{
	if (s->hung_up)
		return -ESRCH;
	if (!attach_fits(s, m))
		return -EBADMSG;
	if (s->frames)
		s->owner.moved(s, s->owner.user);
	guest_timer_stop(&s->patience);
	s->owner = *owner;
	s->frames = frames;
	for (size_t i = 0; i < 2; i++)
		s->out[i].sent = m->attach.offsets[AGENT_STDOUT + i];
	attach_send(s);
	guest_session_room(s);
	return 0;
}

bool guest_session_has_id(const struct guest_session *s, const uint8_t id[static AGENT_WIRE_ID])
{
	return memcmp(s->id, id, AGENT_WIRE_ID) == 0;
}

bool guest_session_has_started(const struct guest_session *s)
{
	return s->state != SESSION_STARTING;
}

const uint8_t *guest_session_id(const struct guest_session *s)
{
	return s->id;
}

uint64_t guest_session_kept_since(const struct guest_session *s)
{
	return s->frames || s->is_main || !session_has_ended(s) ? 0 : s->lost_usec;
}

bool guest_session_is_main(const struct guest_session *s)
{
	return s->is_main;
}
