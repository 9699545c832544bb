#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "str.h"
#include "tree-frames.h"
#include "tree-pack.h"
#include "tree-unpack.h"

#define NOTES_PRINTED 16
#define SIGNAL_EXIT   128

/* A connection to an agent, for one stream. */
struct copy_link {
	struct copy_run *run; /* borrowed */
	const char *vm;       /* borrowed */
	const char *path;     /* borrowed: as named by the user */
	int fd;               /* owned */
	bool puts, done;
	int error; /* negative errno: what the guest said ended it */
	struct tree_frames in;
	uint8_t out[AGENT_WIRE_HEADER + AGENT_WIRE_COPY_MAX];
	size_t out_at, out_len;
};

/* Whose tree notes are about: the guest's (VM set) or the host's. */
struct copy_notes {
	struct copy_run *run;
	const char *vm;
};

/* ---- what failed ---- */

static const char *note_text(uint8_t kind, int error)
{
	static const char *const texts[AGENT_COPY_NOTES] = {
		[AGENT_COPY_CHANGED] = "it was cut while it was read; the rest is zeros",
		[AGENT_COPY_OUTSIDE] = "not made: its name leads out of the target",
		[AGENT_COPY_FORM] = "not made: its form is not supported yet",
		[AGENT_COPY_REFUSED] = "not made: device nodes are not copied",
		[AGENT_COPY_APART] = "copied, but with too many hard links before it: from here "
				     "on they become files apart",
		[AGENT_COPY_SOCKET] = "left out: a socket",
		[AGENT_COPY_DEVICE] = "left out: a device node",
		[AGENT_COPY_MOUNT] = "left empty: another file system",
		[AGENT_COPY_OWNED] = "copied, but owners cannot be given: only root can",
	};

	if (kind != AGENT_COPY_FAILED)
		return texts[kind];
	return error == ELOOP ? "a symbolic link is in the way; links are not followed"
			      : strerror(error);
}

static void run_note(struct copy_run *c, const char *vm, uint8_t kind, int error, const char *path)
{
	bool failure = tree_note_is_failure(kind);
	char line[512], safe[384];

	str_escape(safe, sizeof safe, path, strlen(path), NULL);
	snprintf(line, sizeof line, "%s%s%s: %s", str_or(vm, ""), vm ? ":" : "", safe,
		note_text(kind, error));
	if (failure && c->n_failed++ == 0)
		memcpy(c->first, line, sizeof line);
	if (c->n_noted++ >= NOTES_PRINTED)
		return;
	copy_progress_clear(&c->progress);
	fail_say("%s%s", failure ? "" : "warning: ", line);
}

static void on_note(void *user, uint8_t kind, int error, const char *path)
{
	const struct copy_notes *n = user;

	run_note(n->run, n->vm, kind, error, path);
}

static const char *errno_text(int error)
{
	switch (-error) {
	case EBADMSG: return "the tar stream is malformed or ends too early";
	case E2BIG: return "the tar stream goes beyond a limit";
	case EPROTO: return "the guest broke the protocol";
	default: return strerror(-error);
	}
}

static int fail_copy(
	struct copy_run *c, int error, const char *next, const char *vm, const char *path)
{
	char safe[1024];

	str_escape(safe, sizeof safe, path, strlen(path), NULL);
	copy_progress_clear(&c->progress);
	if (!next && (error == -ENOSPC || error == -EDQUOT))
		next = vm ? "the guest's disk is full: free some space in it, or give the VM more "
			    "(--root-size)"
			  : "the host's disk is full: free some space";
	return fail(UVMS_EXIT_FAILED, errno_text(error), next, "%s%s%s cannot be copied",
		str_or(vm, ""), vm ? ":" : "", safe);
}

static int fail_link(struct copy_link *l, int error)
{
	if (error == -ECONNRESET)
		return fail(UVMS_EXIT_FAILED, "the guest or its connection ended", NULL,
			"%s: the copy is incomplete", l->vm);
	return fail_copy(l->run, error, NULL, l->vm, l->path);
}

/* ENTRY: what it was about below the path that was named. */
static int fail_at(struct copy_link *l, int error, const char *entry)
{
	CLEANUP_FREE char *where = str_printf("%s (%s)", l->path, entry);

	return fail_copy(l->run, error, NULL, l->vm, entry[0] ? str_or(where, entry) : l->path);
}

static int fail_signal(struct copy_run *c, const char *path)
{
	char safe[1024];

	copy_progress_clear(&c->progress);
	str_escape(safe, sizeof safe, str_or(path, ""), strlen(str_or(path, "")), NULL);
	if (*safe)
		fail_say("interrupted; the copy is incomplete, and %s was not finished", safe);
	else
		fail_say("interrupted; the copy is incomplete");
	return SIGNAL_EXIT + c->signo;
}

/* ---- the run ---- */

void copy_run_init(struct copy_run *c, const struct copy_options *o, bool with_signals)
{
	sigset_t set;

	*c = (struct copy_run){ .options = *o, .signals = -EBADF };
	copy_progress_init(&c->progress, o->quiet);
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN); /* one file's error, not the end */
	if (!with_signals)
		return;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	c->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

void copy_run_finish(struct copy_run *c)
{
	copy_progress_clear(&c->progress);
	c->signals = fd_close(c->signals);
}

int copy_run_report(struct copy_run *c, int code)
{
	copy_progress_clear(&c->progress);
	if (c->n_noted > NOTES_PRINTED)
		fail_say("%llu more like these are not shown",
			(unsigned long long)(c->n_noted - NOTES_PRINTED));
	if (c->n_failed == 0)
		return code;
	fail_say("%llu failed; the first was %s", (unsigned long long)c->n_failed, c->first);
	return code ? code : UVMS_EXIT_FAILED;
}

static bool run_is_interrupted(struct copy_run *c)
{
	struct signalfd_siginfo si;

	if (c->signals < 0 || read(c->signals, &si, sizeof si) != (ssize_t)sizeof si)
		return false;
	c->signo = (int)si.ssi_signo;
	return true;
}

/* Waits for EVENTS of FD, or of OTHER for reading. What happened to FD; -EINTR: a signal came. */
static int run_wait(struct copy_run *c, int fd, short events, int other)
{
	struct pollfd p[] = { { .fd = fd, .events = events },
		{ .fd = c->signals, .events = POLLIN }, { .fd = other, .events = POLLIN } };

	if (poll(p, ARRAY_SIZE(p), -1) < 0)
		return errno == EINTR ? 0 : -errno;
	if (p[1].revents && run_is_interrupted(c))
		return -EINTR;
	return p[0].revents;
}

/* ---- the connection ---- */

static void link_destroy(struct copy_link *l)
{
	if (!l)
		return;
	fd_close(l->fd);
	free(l);
}

DEFINE_CLEANUP(struct copy_link *, link_destroy);

/* What the agent says beside data. 1: data, or what the caller has to judge. */
static int link_message(struct copy_link *l, const struct agent_wire_msg *m)
{
	char path[AGENT_WIRE_PATH_MAX + 1];

	if (m->type == AGENT_WIRE_COPY_NOTE) {
		snprintf(
			path, sizeof path, "%.*s", (int)m->copy_note.path.len, m->copy_note.path.s);
		run_note(l->run, l->vm, m->copy_note.kind, (int)m->copy_note.error, path);
		return 0;
	}
	if (m->type != AGENT_WIRE_COPY_DONE)
		return 1;
	l->done = true;
	l->run->n_entries += m->copy_done.n_entries;
	if (m->copy_done.error) {
		l->error = -(int)(m->copy_done.error & 0xfff);
		snprintf(
			path, sizeof path, "%.*s", (int)m->copy_done.path.len, m->copy_done.path.s);
		fail_at(l, l->error, path);
	}
	return 0;
}

/* The next frame, waiting for it. A guest that never pauses cannot keep a signal waiting. */
static int link_read(struct copy_link *l, struct agent_wire_msg *ret)
{
	for (;;) {
		int r = run_is_interrupted(l->run) ? -EINTR : tree_frames_read(&l->in, ret);

		if (r != -EAGAIN)
			return r == -EBADMSG ? -EPROTO : r;
		r = run_wait(l->run, l->fd, POLLIN, -EBADF);
		if (r < 0)
			return r;
	}
}

static int link_refused(struct copy_link *l, const struct agent_wire_msg *m)
{
	char text[256];

	str_escape(text, sizeof text, m->failed.text.s, m->failed.text.len, NULL);
	return fail(UVMS_EXIT_FAILED, text,
		l->puts && (m->failed.error == ENOENT || m->failed.error == ENOTDIR)
			? "several sources and - need a directory; otherwise the last name may be "
			  "new, all before it has to be there"
			: NULL,
		"%s:%s cannot be used", l->vm, l->path);
}

static int link_ask(struct copy_link *l, uint8_t type, uint32_t flags)
{
	struct agent_wire_msg m = { .type = type,
		.copy = { .flags = flags, .path = wire_str_from(l->path) } };
	int r = tree_frames_send(l->fd, &m);

	if (r == -EINVAL)
		return fail(UVMS_EXIT_USAGE, NULL, NULL, "%s:%s is too long", l->vm, l->path);
	if (r == 0)
		r = link_read(l, &m);
	if (r == -EINTR)
		return fail_signal(l->run, NULL);
	if (r == -ECONNRESET || r == -EPIPE)
		return fail(UVMS_EXIT_FAILED,
			"its agent closed the connection without an answer: it is older than this "
			"uvms and cannot copy files, or is just ending",
			"uvms restart gives the VM the agent of this uvms", "%s: no answer", l->vm);
	if (r < 0)
		return fail_link(l, r);
	if (m.type == AGENT_WIRE_FAILED)
		return link_refused(l, &m);
	return m.type == AGENT_WIRE_COPY_OK ? 0 : fail_link(l, -EPROTO);
}

/* Connects to VM's agent and asks; 0, or the exit code after a complaint. */
static int link_open(struct copy_run *c, const char *vm, const char *path, uint8_t type,
	uint32_t flags, struct copy_link **ret)
{
	CLEANUP(link_destroyp) struct copy_link *l = calloc(1, sizeof *l);
	int r;

	if (!l)
		return fail_copy(c, -ENOMEM, NULL, vm, path);
	l->run = c;
	l->vm = vm;
	l->path = path;
	l->puts = type == AGENT_WIRE_COPY_PUT;
	l->fd = -EBADF;
	r = cli_call(vm, "io.uvms.VM.OpenAgent", NULL, NULL, &l->fd);
	if (r)
		return r;
	l->in.fd = l->fd;
	l->in.flags = MSG_DONTWAIT;
	fd_set_nonblock(l->fd, 1);
	r = link_ask(l, type, flags);
	if (r)
		return r;
	*ret = TAKE_PTR(l);
	return 0;
}

/* ---- out of a guest ---- */

/* Hands each piece of the stream to SINK. 0, or what ended it. */
static int get_stream(
	struct copy_link *l, int (*sink)(void *user, const void *p, size_t n), void *user)
{
	while (!l->done) {
		struct agent_wire_msg m;
		int r = link_read(l, &m);

		if (r == 0)
			r = link_message(l, &m);
		if (r == 1)
			r = m.type == AGENT_WIRE_COPY_DATA
				    ? sink(user, m.copy_data.bytes, m.copy_data.n_bytes)
				    : -EPROTO;
		if (r < 0)
			return r;
	}
	return 0;
}

struct unpack_sink {
	struct copy_run *run;
	struct tree_unpack *unpack;
	bool failed; /* here, not there */
};

static int unpack_push(void *user, const void *p, size_t n)
{
	struct unpack_sink *s = user;
	int r = tree_unpack_push(s->unpack, p, n);

	s->failed = r < 0;
	copy_progress_add(&s->run->progress, n, tree_unpack_path(s->unpack));
	return r;
}

static uint32_t get_flags(const struct copy_run *c)
{
	return (c->options.follow ? AGENT_COPY_FOLLOW : 0) |
	       (c->options.one_fs ? AGENT_COPY_ONE_FS : 0);
}

static int get_into(struct copy_link *l, const struct tree_target *t, const char *only)
{
	struct copy_notes notes = { l->run, NULL };
	const struct tree_unpack_config config = { .target = t,
		.only = only,
		.owner = l->run->options.owner,
		.notes = { on_note, &notes } };
	CLEANUP(tree_unpack_destroyp) struct tree_unpack *u = NULL;
	struct unpack_sink sink = { .run = l->run };
	int r = tree_unpack_create(&config, &u);

	if (r < 0)
		return fail_copy(l->run, r, NULL, NULL, l->path);
	sink.unpack = u;
	r = get_stream(l, unpack_push, &sink);
	if (r == 0 && !l->error) {
		r = tree_unpack_end(u);
		sink.failed = r < 0;
	}
	if (r == -EINTR)
		return fail_signal(l->run, tree_unpack_path(u));
	if (r < 0 && sink.failed)
		return fail_copy(l->run, r, NULL, NULL, tree_unpack_path(u));
	if (r < 0)
		return fail_link(l, r);
	return l->error ? UVMS_EXIT_FAILED : 0;
}

int copy_get(
	struct copy_run *c, const char *vm, const char *path, const char *to, bool to_directory)
{
	CLEANUP(link_destroyp) struct copy_link *l = NULL;
	CLEANUP(tree_target_close) struct tree_target t = { .fd = -EBADF };
	struct tree_pack_name name;
	int r = tree_pack_name_of(path, &name);

	if (r < 0)
		return fail_copy(c, r, NULL, vm, path);
	r = link_open(c, vm, path, AGENT_WIRE_COPY_GET, get_flags(c), &l);
	if (r)
		return r;
	r = tree_target_open(AT_FDCWD, to, 0, name.contents, to_directory, &t);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, strerror(-r),
			r == -ENOENT || r == -ENOTDIR ? "several sources need a directory; "
							"otherwise the last name may be new, all "
							"before it has to be there"
						      : NULL,
			"%s cannot be used", to);
	return get_into(l, &t, name.contents ? NULL : name.name);
}

static int stdout_push(void *user, const void *p, size_t n)
{
	struct copy_run *c = user;

	copy_progress_add(&c->progress, n, "");
	return fd_write_all(STDOUT_FILENO, p, n) < 0 ? -EPIPE : 0;
}

int copy_get_stream(struct copy_run *c, const char *vm, const char *path)
{
	CLEANUP(link_destroyp) struct copy_link *l = NULL;
	int r = link_open(c, vm, path, AGENT_WIRE_COPY_GET, get_flags(c), &l);

	if (r)
		return r;
	r = get_stream(l, stdout_push, c);
	if (r == -EPIPE)
		return fail(UVMS_EXIT_FAILED, NULL, NULL, "stdout cannot be written to");
	if (r < 0)
		return fail_link(l, r);
	return l->error ? UVMS_EXIT_FAILED : 0;
}

/* ---- into a guest ---- */

/* What is sent: the next piece of the stream to P. 0: its end; -EAGAIN: wait for stdin. */
struct put_source {
	ssize_t (*next)(struct put_source *s, void *p, size_t n);
	const char *(*name)(const struct put_source *s);
	int wait_fd; /* -EBADF: never has to wait */
	struct copy_run *run;
	struct tree_pack *pack; /* owned by the caller */
	char **paths;
	int n, at;
	bool ended;
};

static ssize_t pack_next(struct put_source *s, void *p, size_t n)
{
	for (;;) {
		ssize_t got = tree_pack_pull(s->pack, p, n);
		int r;

		if (got != 0 || s->at == s->n)
			return got;
		r = tree_pack_start(s->pack, AT_FDCWD, s->paths[s->at], 0);
		if (r < 0)
			run_note(s->run, NULL, AGENT_COPY_FAILED, -r, s->paths[s->at]);
		s->at++;
	}
}

static const char *pack_name(const struct put_source *s)
{
	return tree_pack_path(s->pack);
}

static ssize_t stdin_next(struct put_source *s, void *p, size_t n)
{
	struct pollfd in = { .fd = STDIN_FILENO, .events = POLLIN };
	ssize_t got;

	if (poll(&in, 1, 0) == 0)
		return -EAGAIN;
	got = read(STDIN_FILENO, p, n);
	if (got < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return got;
}

static const char *stdin_name(const struct put_source *s)
{
	return "";
}

/* Has a frame in l->out, if there is one. */
static int put_fill(struct copy_link *l, struct put_source *s)
{
	static const struct agent_wire_msg end = { .type = AGENT_WIRE_COPY_END };
	ssize_t n;

	if (l->out_at < l->out_len || s->ended)
		return 0;
	n = s->next(s, l->out + AGENT_WIRE_HEADER, AGENT_WIRE_COPY_MAX);
	if (n < 0)
		return n == -EAGAIN ? 0 : (int)n;
	l->out_at = 0;
	if (n == 0) {
		s->ended = true;
		l->out_len = (size_t)agent_wire_encode(&end, l->out, sizeof l->out);
		return 0;
	}
	agent_wire_copy_head(l->out, (uint32_t)n);
	l->out_len = AGENT_WIRE_HEADER + (size_t)n;
	copy_progress_add(&l->run->progress, (uint64_t)n, s->name(s));
	return 0;
}

static int put_flush(struct copy_link *l)
{
	ssize_t n = send(
		l->fd, l->out + l->out_at, l->out_len - l->out_at, MSG_DONTWAIT | MSG_NOSIGNAL);

	if (n < 0) /* why it does not take more is to be read */
		return errno == EAGAIN || errno == EINTR || errno == EPIPE || errno == ECONNRESET
			       ? 0
			       : -errno;
	l->out_at += (size_t)n;
	return 0;
}

static int put_read(struct copy_link *l)
{
	struct agent_wire_msg m;
	int r = tree_frames_read(&l->in, &m);

	if (r == -EAGAIN)
		return 0;
	if (r < 0)
		return r == -EBADMSG ? -EPROTO : r;
	r = link_message(l, &m);
	return r == 1 ? -EPROTO : r;
}

static int put_turn(struct copy_link *l, struct put_source *s)
{
	bool pending;
	int r = put_fill(l, s), events;

	if (r < 0)
		return r;
	pending = l->out_at < l->out_len;
	events = run_wait(l->run, l->fd, (short)(POLLIN | (pending ? POLLOUT : 0)),
		pending || s->ended ? -EBADF : s->wait_fd);
	if (events < 0)
		return events;
	if (events & (POLLIN | POLLHUP | POLLERR))
		return put_read(l);
	return events & POLLOUT ? put_flush(l) : 0;
}

static int put_stream(struct copy_link *l, struct put_source *s)
{
	int r = 0;

	while (r == 0 && !l->done)
		r = put_turn(l, s);
	if (r == -EINTR)
		return fail_signal(l->run, s->name(s));
	if (r < 0)
		return fail_link(l, r);
	return l->error ? UVMS_EXIT_FAILED : 0;
}

static uint32_t put_flags(const struct copy_run *c)
{
	return c->options.owner ? AGENT_COPY_OWNER : 0;
}

int copy_put(struct copy_run *c, char **paths, int n, const char *vm, const char *to)
{
	CLEANUP(tree_pack_destroyp) struct tree_pack *pack = NULL;
	CLEANUP(link_destroyp) struct copy_link *l = NULL;
	struct copy_notes notes = { c, NULL };
	const struct tree_pack_config config = { .follow = c->options.follow,
		.one_fs = c->options.one_fs,
		.notes = { on_note, &notes } };
	struct tree_pack_name name = { 0 };
	uint32_t flags = put_flags(c);
	int r = tree_pack_create(&config, &pack);

	/* a source that is not there is found before anything is made */
	if (r == 0)
		r = tree_pack_name_of(paths[0], &name);
	if (r == 0)
		r = tree_pack_start(pack, AT_FDCWD, paths[0], 0);
	if (r < 0)
		return fail_copy(c, r, NULL, NULL, paths[0]);
	flags |= n > 1 ? AGENT_COPY_DIRECTORY : name.contents ? AGENT_COPY_CONTENTS : 0;
	r = link_open(c, vm, to, AGENT_WIRE_COPY_PUT, flags, &l);
	if (r)
		return r;
	struct put_source s = { .next = pack_next,
		.name = pack_name,
		.wait_fd = -EBADF,
		.run = c,
		.pack = pack,
		.paths = paths,
		.n = n,
		.at = 1 };
	return put_stream(l, &s);
}

int copy_put_stream(struct copy_run *c, const char *vm, const char *to)
{
	CLEANUP(link_destroyp) struct copy_link *l = NULL;
	struct put_source s = {
		.next = stdin_next, .name = stdin_name, .wait_fd = STDIN_FILENO, .run = c
	};
	int r = link_open(c, vm, to, AGENT_WIRE_COPY_PUT, put_flags(c) | AGENT_COPY_DIRECTORY, &l);

	return r ? r : put_stream(l, &s);
}
