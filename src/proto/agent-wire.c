#include "agent-wire.h"

#include <errno.h>
#include <sys/param.h>

#define EXIT_CODE_MAX 255
#define SIGNO_MAX     64

static void xfer_hello(struct wire *w, struct agent_wire_msg *m)
{
	wire_u32(w, &m->hello.version);
	wire_range8(w, &m->hello.stage, AGENT_STAGE_INIT, AGENT_STAGE_AGENT);
	wire_bytes(w, m->hello.secret, sizeof m->hello.secret);
	wire_bytes(w, m->hello.boot_id, sizeof m->hello.boot_id);
}

static void xfer_welcome(struct wire *w, struct agent_wire_msg *m)
{
	wire_u32(w, &m->welcome.version);
	wire_u64(w, &m->welcome.realtime_ns);
	wire_bytes(w, m->welcome.seed, sizeof m->welcome.seed);
}

static void xfer_ready(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->ready.state, AGENT_READY_COMMAND, AGENT_READY_DEGRADED);
	wire_str(w, &m->ready.text, AGENT_WIRE_TEXT_MAX);
}

static void xfer_log(struct wire *w, struct agent_wire_msg *m)
{
	wire_str(w, &m->log.text, AGENT_WIRE_TEXT_MAX);
}

static void xfer_stop(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->stop.mode, AGENT_STOP_POWEROFF, AGENT_STOP_HALT);
	wire_u32(w, &m->stop.deadline_ms);
}

static void xfer_done(struct wire *w, struct agent_wire_msg *m)
{
	wire_u8(w, &m->done.request);
	wire_u32(w, &m->done.error);
}

static void xfer_clock(struct wire *w, struct agent_wire_msg *m)
{
	wire_u64(w, &m->clock.realtime_ns);
}

static void xfer_entropy(struct wire *w, struct agent_wire_msg *m)
{
	wire_bytes(w, m->entropy.seed, sizeof m->entropy.seed);
}

static void xfer_network(struct wire *w, struct agent_wire_msg *m)
{
	boot_desc_xfer_network(w, &m->network);
}

static void xfer_mount(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->mount.kind, AGENT_MOUNT_VIRTIOFS, AGENT_MOUNT_PMEM);
	wire_u64(w, &m->mount.bytes);
	wire_str(w, &m->mount.tag, AGENT_WIRE_TAG_MAX);
	wire_str(w, &m->mount.path, AGENT_WIRE_PATH_MAX);
}

static void xfer_unmount(struct wire *w, struct agent_wire_msg *m)
{
	wire_str(w, &m->unmount.path, AGENT_WIRE_PATH_MAX);
}

static void xfer_ping(struct wire *w, struct agent_wire_msg *m)
{
	wire_u64(w, &m->ping.cookie);
}

static void xfer_auth(struct wire *w, struct agent_wire_msg *m)
{
	wire_u32(w, &m->auth.version);
	wire_bytes(w, m->auth.secret, sizeof m->auth.secret);
}

static void xfer_auth_ok(struct wire *w, struct agent_wire_msg *m)
{
	wire_u32(w, &m->auth_ok.version);
}

static void xfer_exec(struct wire *w, struct agent_wire_msg *m)
{
	wire_range32(w, &m->exec.flags, 0, AGENT_EXEC_FLAGS);
	wire_bytes(w, m->exec.id, sizeof m->exec.id);
	wire_u16(w, &m->exec.rows);
	wire_u16(w, &m->exec.cols);
	wire_str(w, &m->exec.user, AGENT_WIRE_USER_MAX);
	wire_str(w, &m->exec.workdir, AGENT_WIRE_PATH_MAX);
	wire_str(w, &m->exec.term, AGENT_WIRE_TERM_MAX);
	wire_strv(w, &m->exec.argv, AGENT_WIRE_ARGS_MAX);
	wire_strv(w, &m->exec.env, AGENT_WIRE_ENV_MAX);
	if (m->exec.argv.n == 0 && w->error == 0)
		w->error = w->out ? -EINVAL : -EBADMSG;
}

static void xfer_attach(struct wire *w, struct agent_wire_msg *m)
{
	wire_bytes(w, m->attach.id, sizeof m->attach.id);
	for (size_t i = 0; i < AGENT_STREAMS; i++)
		wire_u64(w, &m->attach.offsets[i]);
}

static void xfer_attached(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->attached.flags, 0, AGENT_ATTACHED_FLAGS);
	wire_u32(w, &m->attached.pid);
	wire_u64(w, &m->attached.received);
	wire_u32(w, &m->attached.signal_last);
}

static void xfer_forward(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->forward.kind, AGENT_FORWARD_TCP, AGENT_FORWARD_VSOCK);
	wire_u32(w, &m->forward.port);
	wire_str(w, &m->forward.path, AGENT_WIRE_PATH_MAX);
}

static void xfer_copy(struct wire *w, struct agent_wire_msg *m)
{
	wire_range32(w, &m->copy.flags, 0, AGENT_COPY_FLAGS);
	wire_str(w, &m->copy.path, AGENT_WIRE_PATH_MAX);
}

static void xfer_copy_data(struct wire *w, struct agent_wire_msg *m)
{
	wire_rest(w, &m->copy_data.bytes, &m->copy_data.n_bytes, AGENT_WIRE_COPY_MAX);
	if (m->copy_data.n_bytes == 0 && w->error == 0)
		w->error = w->out ? -EINVAL : -EBADMSG;
}

static void xfer_copy_note(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->copy_note.kind, AGENT_COPY_FAILED, AGENT_COPY_NOTES - 1);
	wire_u32(w, &m->copy_note.error);
	wire_str(w, &m->copy_note.path, AGENT_WIRE_PATH_MAX);
}

static void xfer_copy_done(struct wire *w, struct agent_wire_msg *m)
{
	wire_u32(w, &m->copy_done.error);
	wire_u64(w, &m->copy_done.n_entries);
	wire_str(w, &m->copy_done.path, AGENT_WIRE_PATH_MAX);
}

static void xfer_started(struct wire *w, struct agent_wire_msg *m)
{
	wire_u32(w, &m->started.pid);
}

static void xfer_failed(struct wire *w, struct agent_wire_msg *m)
{
	wire_u8(w, &m->failed.code);
	wire_u32(w, &m->failed.error);
	wire_str(w, &m->failed.text, AGENT_WIRE_TEXT_MAX);
}

static void xfer_info_reply(struct wire *w, struct agent_wire_msg *m)
{
	wire_str(w, &m->info_reply.text, AGENT_WIRE_INFO_MAX);
}

static void xfer_data(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->data.stream, AGENT_STDIN, AGENT_STDERR);
	wire_u64(w, &m->data.offset);
	wire_rest(w, &m->data.bytes, &m->data.n_bytes, AGENT_WIRE_DATA_MAX);
	if (m->data.n_bytes == 0 && w->error == 0)
		w->error = w->out ? -EINVAL : -EBADMSG;
}

static void xfer_eof(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->eof.stream, AGENT_STDIN, AGENT_STDERR);
	wire_u64(w, &m->eof.offset);
}

static void xfer_ack(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->ack.stream, AGENT_STDIN, AGENT_STDERR);
	wire_u64(w, &m->ack.offset);
}

static void xfer_signal(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->signal.signo, 1, SIGNO_MAX);
}

static void xfer_signal_n(struct wire *w, struct agent_wire_msg *m)
{
	wire_range32(w, &m->signal_n.number, 1, UINT32_MAX);
	wire_range8(w, &m->signal_n.signo, 1, SIGNO_MAX);
}

static void xfer_signal_ack(struct wire *w, struct agent_wire_msg *m)
{
	wire_range32(w, &m->signal_ack.number, 1, UINT32_MAX);
}

static void xfer_winsize(struct wire *w, struct agent_wire_msg *m)
{
	wire_u16(w, &m->winsize.rows);
	wire_u16(w, &m->winsize.cols);
}

static void xfer_exit(struct wire *w, struct agent_wire_msg *m)
{
	wire_range8(w, &m->exit.kind, AGENT_EXITED, AGENT_SIGNALED);
	wire_range32(w, &m->exit.code, 0, EXIT_CODE_MAX);
	wire_range8(w, &m->exit.core, 0, 1);
}

static void xfer_nothing(struct wire *w, struct agent_wire_msg *m)
{
}

static const struct {
	const char *name;
	void (*xfer)(struct wire *w, struct agent_wire_msg *m);
} types[256] = {
	[AGENT_WIRE_HELLO] = { "HELLO", xfer_hello },
	[AGENT_WIRE_WELCOME] = { "WELCOME", xfer_welcome },
	[AGENT_WIRE_READY] = { "READY", xfer_ready },
	[AGENT_WIRE_MAIN_EXIT] = { "MAIN_EXIT", xfer_exit },
	[AGENT_WIRE_LOG] = { "LOG", xfer_log },
	[AGENT_WIRE_STOP] = { "STOP", xfer_stop },
	[AGENT_WIRE_DONE] = { "DONE", xfer_done },
	[AGENT_WIRE_CLOCK] = { "CLOCK", xfer_clock },
	[AGENT_WIRE_ENTROPY] = { "ENTROPY", xfer_entropy },
	[AGENT_WIRE_PING] = { "PING", xfer_ping },
	[AGENT_WIRE_PONG] = { "PONG", xfer_ping },
	[AGENT_WIRE_NETWORK] = { "NETWORK", xfer_network },
	[AGENT_WIRE_FREEZE] = { "FREEZE", xfer_nothing },
	[AGENT_WIRE_THAW] = { "THAW", xfer_nothing },
	[AGENT_WIRE_MOUNT] = { "MOUNT", xfer_mount },
	[AGENT_WIRE_UNMOUNT] = { "UNMOUNT", xfer_unmount },
	[AGENT_WIRE_AUTH] = { "AUTH", xfer_auth },
	[AGENT_WIRE_AUTH_OK] = { "AUTH_OK", xfer_auth_ok },
	[AGENT_WIRE_EXEC] = { "EXEC", xfer_exec },
	[AGENT_WIRE_ATTACH] = { "ATTACH", xfer_attach },
	[AGENT_WIRE_FORWARD] = { "FORWARD", xfer_forward },
	[AGENT_WIRE_INFO] = { "INFO", xfer_nothing },
	[AGENT_WIRE_COPY_GET] = { "COPY_GET", xfer_copy },
	[AGENT_WIRE_COPY_PUT] = { "COPY_PUT", xfer_copy },
	[AGENT_WIRE_COPY_OK] = { "COPY_OK", xfer_nothing },
	[AGENT_WIRE_COPY_DATA] = { "COPY_DATA", xfer_copy_data },
	[AGENT_WIRE_COPY_END] = { "COPY_END", xfer_nothing },
	[AGENT_WIRE_COPY_NOTE] = { "COPY_NOTE", xfer_copy_note },
	[AGENT_WIRE_COPY_DONE] = { "COPY_DONE", xfer_copy_done },
	[AGENT_WIRE_STARTED] = { "STARTED", xfer_started },
	[AGENT_WIRE_FAILED] = { "FAILED", xfer_failed },
	[AGENT_WIRE_FORWARD_OK] = { "FORWARD_OK", xfer_nothing },
	[AGENT_WIRE_INFO_REPLY] = { "INFO_REPLY", xfer_info_reply },
	[AGENT_WIRE_ATTACHED] = { "ATTACHED", xfer_attached },
	[AGENT_WIRE_DATA] = { "DATA", xfer_data },
	[AGENT_WIRE_EOF] = { "EOF", xfer_eof },
	[AGENT_WIRE_ACK] = { "ACK", xfer_ack },
	[AGENT_WIRE_SIGNAL] = { "SIGNAL", xfer_signal },
	[AGENT_WIRE_WINSIZE] = { "WINSIZE", xfer_winsize },
	[AGENT_WIRE_EXIT] = { "EXIT", xfer_exit },
	[AGENT_WIRE_EXIT_ACK] = { "EXIT_ACK", xfer_nothing },
	[AGENT_WIRE_SIGNAL_N] = { "SIGNAL_N", xfer_signal_n },
	[AGENT_WIRE_SIGNAL_ACK] = { "SIGNAL_ACK", xfer_signal_ack },
	[AGENT_WIRE_HANGUP] = { "HANGUP", xfer_nothing },
};

static void xfer_header(struct wire *w, uint32_t *length, uint8_t *type)
{
	uint8_t flags = 0;
	uint16_t zero = 0;

	wire_range32(w, length, 0, AGENT_WIRE_PAYLOAD_MAX);
	wire_u8(w, type);
	wire_range8(w, &flags, 0, 0);
	wire_u16(w, &zero);
	if (zero != 0 && w->error == 0)
		w->error = -EBADMSG;
}

ssize_t agent_wire_encode(const struct agent_wire_msg *m, void *buf, size_t size)
{
	struct agent_wire_msg copy = *m; /* the list of calls is shared with decoding */
	struct wire w = { .out = buf, .pos = AGENT_WIRE_HEADER };
	uint32_t length;

	if (!types[m->type].xfer)
		return -EOPNOTSUPP;
	if (size < AGENT_WIRE_HEADER)
		return -ENOBUFS;
	w.size = MIN(size, (size_t)AGENT_WIRE_FRAME_MAX);
	types[m->type].xfer(&w, &copy);
	if (w.error < 0)
		return w.error;

	size = w.pos;
	length = (uint32_t)(size - AGENT_WIRE_HEADER);
	w.pos = 0;
	xfer_header(&w, &length, &copy.type);
	return w.error < 0 ? w.error : (ssize_t)size;
}

ssize_t agent_wire_decode(const void *buf, size_t len, struct agent_wire_msg *ret)
{
	struct agent_wire_msg m = {};
	struct wire w = { .in = buf, .size = AGENT_WIRE_HEADER };
	uint32_t length = 0;
	int r;

	if (len < AGENT_WIRE_HEADER)
		return 0;
	xfer_header(&w, &length, &m.type);
	if (w.error < 0 || !types[m.type].xfer)
		return -EBADMSG;
	if (len - AGENT_WIRE_HEADER < length)
		return 0;

	w.size += length;
	types[m.type].xfer(&w, &m);
	r = wire_finish(&w);
	if (r < 0)
		return r;
	*ret = m;
	return (ssize_t)w.pos;
}

uint32_t agent_wire_payload_length(const uint8_t buf[static AGENT_WIRE_HEADER])
{
	return (uint32_t)buf[0] | (uint32_t)buf[1] << 8 | (uint32_t)buf[2] << 16 |
	       (uint32_t)buf[3] << 24;
}

void agent_wire_copy_head(uint8_t ret[static AGENT_WIRE_HEADER], uint32_t n)
{
	struct wire w = { .out = ret, .size = AGENT_WIRE_HEADER };
	uint8_t type = AGENT_WIRE_COPY_DATA;

	xfer_header(&w, &n, &type);
}

const char *agent_wire_type_name(uint8_t type)
{
	return types[type].name;
}
