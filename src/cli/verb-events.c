#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "fd.h"
#include "pidfd.h"
#include "runtime-dir.h"
#include "str.h"
#include "verb-list.h"
#include "vm-event.h"
#include "vm-status.h"

/*
 * Theory of operation. The lines of STATE/events are printed as they come (inotify on the directory). A
 * supervisor that is killed writes none about it: so the processes of those that run are watched by pidfd,
 * and when one ends, what it left is swept, which writes the line that is missing.
 */

#define SWEEP_MS    100
#define SWEEP_TRIES 50
#define WATCHES_MAX 1024 /* beyond it a killed supervisor is told of when others sweep it */

static bool arg_json, arg_all, arg_no_follow;

static const struct option_def options[] = {
	{ "all", 'a', NULL, OPTION_FLAG, &arg_all, "begin with all that is kept" },
	{ "no-follow", 'n', NULL, OPTION_FLAG, &arg_no_follow, "do not wait for more" },
	{ "json", 0, NULL, OPTION_FLAG, &arg_json, "one JSON object a line" },
	{ 0 },
};

struct watch {
	char *vm;       /* owned */
	int pidfd;      /* owned; -EBADF: it has ended, and the sweep waits for the rest of it */
	unsigned tries; /* to sweep */
};

struct follower {
	char **names; /* borrowed; none: all */
	int state;    /* owned, all: the state directory */
	int file;     /* what is being read; -EBADF: not there yet */
	int inotify;  /* of the directory */
	char line[VM_EVENT_LINE_MAX + 1];
	size_t len;
	bool skipping; /* in a line that is too long to be one of ours */
	struct watch *watches;
	size_t n_watches;
};

static void follower_finish(struct follower *f)
{
	fd_close(f->state);
	fd_close(f->file);
	fd_close(f->inotify);
	for (size_t i = 0; i < f->n_watches; i++) {
		free(f->watches[i].vm);
		fd_close(f->watches[i].pidfd);
	}
	free(f->watches);
}

static bool is_wanted(const struct follower *f, const char *vm)
{
	for (char **n = f->names; *n; n++) {
		if (str_eq(*n, vm))
			return true;
	}
	return !*f->names;
}

static void watch_add(struct follower *f, const char *vm)
{
	struct vm_status s = { 0 };
	struct watch *bigger;
	int pidfd = -EBADF;

	if (f->n_watches >= WATCHES_MAX || vm_status_look(cli_dirs(), vm, &s) < 0)
		return;
	if (vm_status_is_alive(&s) && s.supervisor_pid > 0)
		pidfd = pidfd_open_pid((pid_t)s.supervisor_pid);
	vm_status_finish(&s);
	if (pidfd < 0)
		return;
	bigger = reallocarray(f->watches, f->n_watches + 1, sizeof *bigger);
	if (bigger)
		f->watches = bigger;
	if (!bigger || !(bigger[f->n_watches].vm = strdup(vm))) {
		close(pidfd);
		return;
	}
	bigger[f->n_watches].pidfd = pidfd;
	bigger[f->n_watches++].tries = 0;
}

/*
 * The supervisor has ended: in order, or there is something to be swept, once the last process of the
 * incarnation has followed it.
 */
static void watch_end(struct follower *f, size_t i)
{
	struct watch *w = &f->watches[i];

	w->pidfd = fd_close(w->pidfd);
	if (runtime_dir_sweep(cli_dirs(), w->vm) == -EBUSY && ++w->tries < SWEEP_TRIES)
		return;
	free(w->vm);
	*w = f->watches[--f->n_watches];
}

static int watch_timeout(const struct follower *f)
{
	for (size_t i = 0; i < f->n_watches; i++) {
		if (f->watches[i].pidfd < 0)
			return SWEEP_MS;
	}
	return -1;
}

static void print_text(const struct vm_event *e)
{
	time_t t = (time_t)(e->time_usec / 1000000);
	char when[64] = "?", text[4 * VM_EVENT_LINE_MAX];
	CLEANUP_FREE char *what = NULL;
	struct tm tm;

	if (localtime_r(&t, &tm))
		strftime(when, sizeof when, "%F %T", &tm);
	what = str_printf("%s %s%s%s%s%s%s%s", e->vm, e->event, e->state ? " " : "",
		str_or(e->state, ""), e->outcome ? " " : "", str_or(e->outcome, ""),
		e->cause ? ": " : "", str_or(e->cause, ""));
	if (!what)
		return;
	str_escape(text, sizeof text, what, strlen(what), NULL);
	printf("%s.%03u %s\n", when, (unsigned)(e->time_usec / 1000 % 1000), text);
}

static void on_line(struct follower *f, const char *line, size_t len)
{
	struct vm_event e;

	if (vm_event_parse(line, len, &e) < 0)
		return;
	if (is_wanted(f, e.vm)) {
		struct json_object *o = arg_json ? vm_event_to_json(&e) : NULL;

		if (o)
			puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN));
		else if (!arg_json)
			print_text(&e);
		json_object_put(o);
	}
	if (!arg_no_follow && str_eq(e.state, "starting"))
		watch_add(f, e.vm);
	vm_event_finish(&e);
}

static void on_byte(struct follower *f, char c)
{
	if (c == '\n') {
		if (!f->skipping)
			on_line(f, f->line, f->len);
		f->len = 0;
		f->skipping = false;
	} else if (f->len < VM_EVENT_LINE_MAX) {
		f->line[f->len++] = c;
	} else {
		f->skipping = true;
	}
}

static void read_on(struct follower *f)
{
	char buf[65536];
	ssize_t n;

	while (f->file >= 0 && (n = read(f->file, buf, sizeof buf)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			on_byte(f, buf[i]);
	}
	fflush(stdout);
}

static int open_file(const struct follower *f, const char *name)
{
	return openat(f->state, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

/* The rest of the old file, then the new one when there is another. */
static void catch_up(struct follower *f)
{
	struct stat here, there;

	read_on(f);
	if (fstatat(f->state, VM_EVENT_FILE, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (f->file >= 0 && fstat(f->file, &here) == 0 && here.st_ino == there.st_ino)
		return;
	read_on(f);
	fd_close(f->file);
	f->file = open_file(f, VM_EVENT_FILE);
	read_on(f);
}

static int watch_known(const char *name, void *userdata)
{
	watch_add(userdata, name);
	return 0;
}

static void drain_inotify(int fd)
{
	char buf[4096] __attribute__((aligned(8)));

	while (read(fd, buf, sizeof buf) > 0)
		;
}

/* False when stdout's reader is gone. */
static bool wait_once(struct follower *f)
{
	size_t n = f->n_watches;
	CLEANUP_FREE struct pollfd *p = calloc(n + 2, sizeof *p);

	if (!p)
		return false;
	p[0] = (struct pollfd){ f->inotify, POLLIN, 0 };
	p[1] = (struct pollfd){ STDOUT_FILENO, 0, 0 };
	for (size_t i = 0; i < n; i++)
		p[i + 2] = (struct pollfd){ f->watches[i].pidfd, POLLIN, 0 };
	if (poll(p, n + 2, watch_timeout(f)) < 0 && errno != EINTR)
		return false;
	if (p[1].revents & (POLLERR | POLLHUP))
		return false;
	for (size_t i = n; i-- > 0;) {
		if (p[i + 2].revents || p[i + 2].fd < 0)
			watch_end(f, i);
	}
	drain_inotify(f->inotify);
	catch_up(f);
	return true;
}

static int cannot(const char *what, int error)
{
	return fail(UVMS_EXIT_FAILED, strerror(error), NULL, "%s", what);
}

static int follow(struct follower *f)
{
	if (cli_each_vm(watch_known, f) < 0)
		return UVMS_EXIT_FAILED;
	while (wait_once(f))
		;
	return 0;
}

static void begin(struct follower *f)
{
	if (arg_all) {
		f->file = open_file(f, VM_EVENT_OLD_FILE);
		read_on(f);
		f->file = fd_close(f->file);
	}
	f->file = open_file(f, VM_EVENT_FILE);
	if (!arg_all && f->file >= 0)
		(void)lseek(f->file, 0, SEEK_END);
}

static int run(int argc, char **argv)
{
	CLEANUP(follower_finish) struct follower f = { .names = argv, .file = -EBADF };
	int r = 0;

	argv[argc] = NULL;
	for (int i = 0; r == 0 && i < argc; i++)
		r = cli_check_name(argv[i]);
	if (r)
		return r;
	f.state = vm_dirs_open_state(cli_dirs(), ".");
	f.inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (f.state < 0 || f.inotify < 0)
		return cannot("events cannot be read", f.state < 0 ? -f.state : errno);
	if (inotify_add_watch(f.inotify, cli_dirs()->state, IN_MODIFY | IN_CREATE | IN_MOVED_TO) <
		0)
		return cannot("events cannot be watched", errno);
	begin(&f);
	read_on(&f);
	return arg_no_follow ? 0 : follow(&f);
}

const struct verb verb_events = {
	.name = "events",
	.arguments = "[-a] [-n] [--json] [NAME...]",
	.summary = "show what happens to VMs, and why",
	.description = "Every change of state, from now on, until it is interrupted. What is kept "
		       "is bounded at 2 MiB.",
	.options = options,
	.min = 0,
	.max = -1,
	.run = run,
};
