#include "guest-ready.h"

#include "cleanup.h"
#include "fd.h"
#include "str.h"

#include <errno.h>

#define RETRY_MS 500

static void ready_run(struct guest_ready *r);

static void ready_retry(struct guest_timer *t)
{
	ready_run(GUEST_CONTAINER(t, struct guest_ready, timer));
}

static void ready_again(struct guest_ready *r)
{
	guest_timer_arm(&r->timer, r->loop, RETRY_MS, ready_retry);
}

/* "unit load active sub description" lines become unit names. */
static void ready_keep_names(struct guest_ready *r)
{
	char *to = r->text, *rest = r->text, *line;

	while ((line = strsep(&rest, "\n"))) {
		size_t len = strcspn(line, " ");

		if (len == 0)
			continue;
		memmove(to, line, len);
		to += len;
		*to++ = '\n';
	}
	if (to > r->text)
		to--;
	*to = '\0';
}

/* The whole output of one systemctl is there. */
static void ready_judge(struct guest_ready *r)
{
	if (r->listing) {
		ready_keep_names(r);
		r->done(r->user, true, r->text);
	} else if (str_eq(r->text, "running\n")) {
		r->done(r->user, false, "");
	} else if (r->len == 0 || str_eq(r->text, "starting\n") ||
		   str_eq(r->text, "initializing\n")) {
		ready_again(r);
	} else {
		r->listing = true;
		ready_run(r);
	}
}

static void ready_output(struct guest_source *s, uint32_t events)
{
	struct guest_ready *r = GUEST_CONTAINER(s, struct guest_ready, output);
	char drop[256];
	size_t room = GUEST_READY_TEXT_MAX - r->len;
	ssize_t n = room > 0 ? read(r->fd, r->text + r->len, room) : read(r->fd, drop, sizeof drop);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n > 0 && room > 0)
		r->len += (size_t)n;
	if (n > 0)
		return;
	r->text[r->len] = '\0';
	guest_source_stop(&r->output);
	r->fd = fd_close(r->fd);
	guest_proc_finish(&r->proc);
	ready_judge(r);
}

static void ready_started(struct guest_proc *p)
{
}

static void ready_ended(struct guest_proc *p, const siginfo_t *ending)
{
}

static void ready_failed(struct guest_proc *p, uint8_t code, int error, const char *step)
{
}

static void ready_run(struct guest_ready *r)
{
	static const char *const wait[] = { "systemctl", "is-system-running", "--wait", NULL };
	static const char *const list[] = { "systemctl", "list-units", "--failed", "--plain",
		"--no-legend", "--no-pager", NULL };
	char packed[256];
	struct wire w = { .out = (uint8_t *)packed, .size = sizeof packed };
	struct guest_proc_spec spec = {};
	struct wire_strv argv = wire_strv_from(r->listing ? list : wait);
	const char *step;

	wire_strv(&w, &argv, argv.n);
	spec.argv = (struct wire_strv){ .n = argv.n,
		.packed = (uint8_t *)packed + sizeof(uint32_t),
		.packed_bytes = w.pos - sizeof(uint32_t) };
	r->len = 0;
	r->proc = (struct guest_proc){
		.on_started = ready_started, .on_failed = ready_failed, .on_exit = ready_ended
	};
	if (guest_proc_start(&r->proc, &spec, r->loop, r->reaper, &step) < 0) {
		ready_again(r);
		return;
	}
	r->proc.stderr_fd = fd_close(r->proc.stderr_fd);
	r->fd = TAKE_FD(r->proc.stdout_fd);
	guest_source_init(&r->output, r->loop, r->fd, ready_output);
	guest_source_set(&r->output, EPOLLIN);
}

void guest_ready_start(struct guest_ready *r)
{
	r->fd = -EBADF;
	r->proc.status_fd = r->proc.stdin_fd = r->proc.stdout_fd = r->proc.stderr_fd = -EBADF;
	ready_run(r);
}

void guest_ready_finish(struct guest_ready *r)
{
	guest_timer_stop(&r->timer);
	guest_source_stop(&r->output);
	r->fd = fd_close(r->fd);
	guest_proc_finish(&r->proc);
}
