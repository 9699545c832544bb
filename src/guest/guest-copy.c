#include "guest-copy.h"

#include "cleanup.h"
#include "fd.h"
#include "tree-at.h"
#include "tree-frames.h"
#include "tree-pack.h"
#include "tree-unpack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_FD     3
#define LINGER_S    5
#define FAILED_CODE 1
#define CHILD_UMASK 022

/* One copy, in its own process. */
struct copy {
	uint32_t flags;
	char path[AGENT_WIRE_PATH_MAX + 1];
	int root; /* owned */
	struct tree_frames in;
	uint8_t out[AGENT_WIRE_HEADER + AGENT_WIRE_COPY_MAX];
};

/* The host waits to be told; if it is gone, so is the reason to go on. */
static void say(const struct agent_wire_msg *m)
{
	if (tree_frames_send(COPY_FD, m) < 0)
		_exit(1);
}

static void say_failed(int error)
{
	say(&(struct agent_wire_msg){ .type = AGENT_WIRE_FAILED,
		.failed = { FAILED_CODE, (uint32_t)-error, wire_str_from(strerror(-error)) } });
}

static struct wire_str path_for_wire(const char *path)
{
	struct wire_str s = wire_str_from(path);

	if (s.len > AGENT_WIRE_PATH_MAX)
		s.len = AGENT_WIRE_PATH_MAX;
	return s;
}

/* The first error on the connection ends a copy that receives, after its clean-up. */
static void on_note(void *user, uint8_t kind, int error, const char *path)
{
	tree_frames_send(
		COPY_FD, &(struct agent_wire_msg){ .type = AGENT_WIRE_COPY_NOTE,
				 .copy_note = { kind, (uint32_t)error, path_for_wire(path) } });
}

static void say_done(int error, uint64_t n_entries, const char *path)
{
	tree_frames_send(COPY_FD,
		&(struct agent_wire_msg){ .type = AGENT_WIRE_COPY_DONE,
			.copy_done = { (uint32_t)-error, n_entries, path_for_wire(path) } });
}

/* What was sent last has to arrive: the other side closes first, or has its time. */
static void linger(struct copy *c)
{
	shutdown(COPY_FD, SHUT_WR);
	alarm(LINGER_S);
	while (recv(COPY_FD, c->out, sizeof c->out, 0) > 0)
		;
}

/* ---- out of the guest ---- */

static int get_stream(struct copy *c, struct tree_pack *p)
{
	for (;;) {
		ssize_t n = tree_pack_pull(p, c->out + AGENT_WIRE_HEADER, AGENT_WIRE_COPY_MAX);
		int r;

		if (n == 0)
			return 0;
		agent_wire_copy_head(c->out, (uint32_t)n);
		r = fd_write_all(COPY_FD, c->out, AGENT_WIRE_HEADER + (size_t)n);
		if (r < 0)
			return r;
	}
}

static void copy_get(struct copy *c)
{
	CLEANUP(tree_pack_destroyp) struct tree_pack *p = NULL;
	const struct tree_pack_config config = { .follow = c->flags & AGENT_COPY_FOLLOW,
		.one_fs = c->flags & AGENT_COPY_ONE_FS,
		.notes.note = on_note };
	int r = tree_pack_create(&config, &p);

	if (r == 0)
		r = tree_pack_start(p, c->root, c->path, TREE_AT_IN_ROOT);
	if (r < 0) {
		say_failed(r);
		return;
	}
	say(&(struct agent_wire_msg){ .type = AGENT_WIRE_COPY_OK });
	if (get_stream(c, p) == 0)
		say_done(0, tree_pack_entries(p), "");
}

/* ---- into the guest ---- */

/* 0: all has come; -ECONNRESET: the host has given up; else the stream cannot go on. */
static int put_stream(struct copy *c, struct tree_unpack *u)
{
	for (;;) {
		struct agent_wire_msg m;
		int r = tree_frames_read(&c->in, &m);

		if (r < 0)
			return r == -EBADMSG ? -EPROTO : -ECONNRESET;
		if (m.type == AGENT_WIRE_COPY_END)
			return tree_unpack_end(u);
		if (m.type != AGENT_WIRE_COPY_DATA)
			return -EPROTO;
		r = tree_unpack_push(u, m.copy_data.bytes, m.copy_data.n_bytes);
		if (r < 0)
			return r;
	}
}

static void put_into(struct copy *c, const struct tree_target *t)
{
	const struct tree_unpack_config config = {
		.target = t, .owner = c->flags & AGENT_COPY_OWNER, .notes.note = on_note
	};
	char path[AGENT_WIRE_PATH_MAX + 1] = "";
	struct tree_unpack *u = NULL;
	uint64_t n_entries;
	int r = tree_unpack_create(&config, &u);

	if (r < 0) {
		say_failed(r);
		return;
	}
	say(&(struct agent_wire_msg){ .type = AGENT_WIRE_COPY_OK });
	r = put_stream(c, u);
	n_entries = tree_unpack_entries(u);
	if (r < 0)
		strncpy(path, tree_unpack_path(u), AGENT_WIRE_PATH_MAX);
	tree_unpack_destroy(u);
	if (r != -ECONNRESET)
		say_done(r, n_entries, path);
}

static void copy_put(struct copy *c)
{
	struct tree_target t;
	int r = tree_target_open(c->root, c->path, TREE_AT_IN_ROOT, c->flags & AGENT_COPY_CONTENTS,
		c->flags & AGENT_COPY_DIRECTORY, &t);

	if (r < 0) {
		say_failed(r);
		return;
	}
	put_into(c, &t);
	tree_target_close(&t);
}

/* ---- the process ---- */

/* The guest stops: as if the host had given up, so that no half file stays. */
static void on_term(int signo)
{
	shutdown(COPY_FD, SHUT_RDWR);
}

static void child_setup(int fd)
{
	struct sigaction term = { .sa_handler = on_term }, dfl = { .sa_handler = SIG_DFL };
	sigset_t none;

	setsid();
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_NAME, "uvms-copy");
	sigaction(SIGTERM, &term, NULL);
	sigaction(SIGALRM, &dfl, NULL);
	signal(SIGXFSZ, SIG_IGN);
	if (dup2(fd, COPY_FD) < 0 || fd_set_nonblock(COPY_FD, 0) < 0)
		_exit(1);
	close_range(COPY_FD + 1, ~0U, 0);
	umask(CHILD_UMASK);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void child_run(struct copy *c, uint8_t type, int fd)
{
	child_setup(fd);
	c->in.fd = COPY_FD;
	c->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (c->root < 0)
		say_failed(-errno);
	else if (type == AGENT_WIRE_COPY_GET)
		copy_get(c);
	else
		copy_put(c);
	linger(c);
	_exit(0);
}

static void copy_ended(struct guest_child *c, const siginfo_t *ending)
{
	/* its place is free: the pid is 0 */
}

static struct guest_child *free_place(struct guest_copy_set *set)
{
	for (size_t i = 0; i < GUEST_COPY_MAX; i++)
		if (set->child[i].pid == 0)
			return &set->child[i];
	return NULL;
}

int guest_copy_start(struct guest_copy_set *set, const struct agent_wire_msg *m, int fd,
	struct guest_reaper *reaper)
{
	struct guest_child *place = free_place(set);
	CLEANUP_FREE struct copy *c = NULL;
	pid_t pid;

	if (!place)
		return -EAGAIN;
	c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	c->flags = m->copy.flags;
	memcpy(c->path, m->copy.path.s, m->copy.path.len);
	pid = fork();
	if (pid == 0)
		child_run(c, m->type, fd);
	if (pid < 0)
		return -errno;
	guest_reaper_add(reaper, place, pid, copy_ended);
	return 0;
}

void guest_copy_set_finish(struct guest_copy_set *set)
{
	for (size_t i = 0; i < GUEST_COPY_MAX; i++)
		guest_reaper_forget(&set->child[i]);
}
