#include "sv-handover.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"
#include "log.h"
#include "sockun.h"
#include "sv-children.h"
#include "sv-choose.h"
#include "sv-vsockd.h"
#include "sv.h"
#include "vmm.h"

enum {
	HANDOVER_NONE,
	HANDOVER_STARTING, /* the next one comes up */
	HANDOVER_ASKED,    /* the one in service hands over */
	HANDOVER_RESUMING, /* it is gone; the next one takes the session */
};

void sv_handover_init(struct sv *sv)
{
	sv->handover = (struct sv_handover){ .keeper_fd = -EBADF, .channel_fd = -EBADF };
	sv_child_init(&sv->handover.next, sv, "vsockd", SV_VSOCKD_GONE);
}

bool sv_handover_is_under_way(const struct sv *sv)
{
	return sv->handover.phase != HANDOVER_NONE;
}

static void handover_let_go(struct sv *sv)
{
	struct sv_handover *h = &sv->handover;

	sv_child_finish(&h->next);
	h->keeper_source = sd_event_source_disable_unref(h->keeper_source);
	h->timer = sd_event_source_disable_unref(h->timer);
	h->keeper_fd = fd_close(h->keeper_fd);
	h->channel_fd = fd_close(h->channel_fd);
	h->phase = HANDOVER_NONE;
}

void sv_handover_finish(struct sv *sv)
{
	handover_let_go(sv);
	sv->handover.done = NULL;
}

static void handover_end(struct sv *sv, enum sv_handover_result result)
{
	void (*done)(struct sv *, enum sv_handover_result) = sv->handover.done;

	sv_handover_finish(sv);
	sv_handover_init(sv);
	if (done)
		done(sv, result);
}

static void handover_give_up(struct sv *sv, const char *why)
{
	log_warning("%s: uvms-vsockd is not replaced: %s", sv->spec.name, why);
	handover_end(sv, SV_HANDOVER_STAYS);
}

static void handover_set_timer(struct sv_handover *h, uint64_t usec)
{
	sd_event_source_set_time_relative(h->timer, usec);
	sd_event_source_set_enabled(h->timer, SD_EVENT_ONESHOT);
}

static int handover_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv *sv = userdata;

	if (sv->handover.phase == HANDOVER_STARTING) {
		handover_give_up(sv, "the new one does not come up");
		return 0;
	}
	/* the new one first: if it is to blame, the other notices, says so, and nothing was lost */
	if (sv->handover.phase == HANDOVER_ASKED && sv_child_is_running(&sv->handover.next)) {
		sv_child_signal(&sv->handover.next, SIGKILL);
		handover_set_timer(&sv->handover, SV_HANDOVER_USEC / 2);
		return 0;
	}
	log_warning("%s: uvms-vsockd hands nothing over: it is killed", sv->spec.name);
	sv_child_signal(&sv->vsockd.child, SIGKILL);
	if (sv->handover.phase == HANDOVER_RESUMING)
		handover_end(sv, SV_HANDOVER_RESET);
	return 0;
}

/* The one in service has been asked perhaps: then it stays, or has ended, and says so itself. */
static void handover_next_ended(struct sv_child *c)
{
	if (c->sv->handover.phase == HANDOVER_STARTING)
		handover_give_up(c->sv, "the new one has ended");
}

/* The one word that the next one has to say until it is in service. */
static bool handover_waits(struct sv_handover *h)
{
	uint8_t bytes[KEEPER_WIRE_BYTES + 1];
	CLEANUP_CLOSE int fd = -EBADF;
	struct keeper_msg m;
	size_t n_fds = 1;
	ssize_t n = fdpass_recv(h->keeper_fd, bytes, sizeof bytes, &fd, &n_fds);

	return n > 0 && keeper_wire_get(bytes, (size_t)n, n_fds, &m) == 0 && m.op == KEEPER_WAITS &&
	       h->phase == HANDOVER_STARTING;
}

static int handover_on_keeper(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv *sv = userdata;
	struct sv_handover *h = &sv->handover;

	if (!handover_waits(h)) {
		handover_give_up(sv, "the new one cannot do it");
		return 0;
	}
	/* nothing else is heard of it until it is in service; its end is seen by itself */
	h->keeper_source = sd_event_source_disable_unref(h->keeper_source);
	if (sv_vsockd_tell(sv, KEEPER_HANDOVER, h->channel_fd) < 0) {
		handover_give_up(sv, "the present one takes no request");
		return 0;
	}
	h->channel_fd = fd_close(h->channel_fd);
	h->phase = HANDOVER_ASKED;
	sd_event_now(sv->event, CLOCK_MONOTONIC, &h->asked_usec);
	handover_set_timer(h, SV_HANDOVER_USEC);
	return 0;
}

/* Each waits for the other no longer than we wait for both. */
static int handover_make_channel(int pair[static 2])
{
	const struct timeval limit = { .tv_sec = (SV_HANDOVER_START_USEC + SV_HANDOVER_USEC) /
						 1000000 };
	const int bytes = 256 * 1024;
	int r = sockun_pair(SOCK_SEQPACKET, pair);

	for (int i = 0; r == 0 && i < 2; i++) {
		(void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
		(void)setsockopt(pair[i], SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
		(void)setsockopt(pair[i], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	}
	return r;
}

/* Both write to one log meanwhile, each by a descriptor of its own. */
static void handover_share_log(struct sv *sv)
{
	struct sv_logfile *log = &sv->handover.next.log;

	*log = sv->vsockd.child.log;
	log->fd = fcntl(log->fd, F_DUPFD_CLOEXEC, 3);
}

static int handover_start(struct sv *sv)
{
	struct sv_handover *h = &sv->handover;
	CLEANUP_CLOSE int from = -EBADF, keeper = -EBADF;
	int pair[2], r;

	r = handover_make_channel(pair);
	if (r < 0)
		return r;
	h->channel_fd = pair[0];
	from = pair[1];
	r = sockun_pair(SOCK_SEQPACKET, pair);
	if (r < 0)
		return r;
	h->keeper_fd = pair[0];
	keeper = pair[1];
	r = fd_set_nonblock(h->keeper_fd, 1);
	if (r >= 0)
		r = sd_event_add_io(sv->event, &h->keeper_source, h->keeper_fd, EPOLLIN,
			handover_on_keeper, sv);
	if (r >= 0)
		r = sd_event_add_time_relative(sv->event, &h->timer, CLOCK_MONOTONIC,
			SV_HANDOVER_START_USEC, 10000, handover_on_timer, sv);
	if (r < 0)
		return r;
	handover_share_log(sv);
	h->next.ended = handover_next_ended;
	return sv_vsockd_spawn(sv, &h->next, keeper, from);
}

void sv_handover_begin(struct sv *sv, sv_handover_done done)
{
	int r;

	sv->handover.done = done;
	if (!sv_choose_vsockd(sv)) {
		handover_end(sv, SV_HANDOVER_NONE);
		return;
	}
	if (sv->vsockd.keeper_fd < 0 || sv_child_has_ended(&sv->vsockd.child)) {
		handover_give_up(sv, "it has just ended");
		return;
	}
	sv->handover.phase = HANDOVER_STARTING;
	r = handover_start(sv);
	if (r < 0)
		handover_give_up(sv, strerror(-r));
}

bool sv_handover_told(struct sv *sv, enum keeper_op op)
{
	struct sv_handover *h = &sv->handover;

	if (op == KEEPER_STAYS && h->phase == HANDOVER_ASKED) {
		handover_give_up(sv, "it keeps its connections");
		return true;
	}
	if (op == KEEPER_UP && h->phase == HANDOVER_RESUMING) {
		uint64_t now = h->asked_usec;

		sd_event_now(sv->event, CLOCK_MONOTONIC, &now);
		log_debug("%s: uvms-vsockd was replaced within %llu us", sv->spec.name,
			(unsigned long long)(now - h->asked_usec));
		handover_end(sv, h->kept ? SV_HANDOVER_DONE : SV_HANDOVER_RESET);
	}
	return op == KEEPER_UP;
}

/* The next one is ours now. */
static int handover_adopt(struct sv *sv)
{
	struct sv_handover *h = &sv->handover;
	struct sv_child *c = &sv->vsockd.child;

	sv_vsockd_drain(sv);
	sv_child_again(c);
	h->next.ended = NULL;
	sv_child_move(c, &h->next);
	sv->status.vsockd_pid = (uint32_t)c->pid;
	sv->status.vsockd_replaced += !h->kept;
	sv_status_save(sv);
	return sv_vsockd_adopt(sv, TAKE_FD(h->keeper_fd));
}

bool sv_handover_took(struct sv *sv)
{
	struct sv_handover *h = &sv->handover;
	const siginfo_t *end = &sv->vsockd.child.end;
	bool exited = end->si_code == CLD_EXITED;

	/* with both gone there is another, which has to reset */
	if (h->phase == HANDOVER_RESUMING || (h->phase == HANDOVER_ASKED && h->next.has_ended))
		handover_end(sv, SV_HANDOVER_RESET);
	if (h->phase == HANDOVER_NONE)
		return false;
	/* status 0: the VMM is gone */
	if (h->phase == HANDOVER_STARTING || (exited && end->si_status == 0) ||
		sv_child_has_ended(&sv->vmm_child) || sv_child_has_ended(&sv->namespace_child)) {
		handover_give_up(sv, "it has ended");
		return false;
	}
	h->kept = exited && end->si_status == SV_VSOCKD_EXIT_HANDED_OVER;
	h->phase = HANDOVER_RESUMING;
	handover_set_timer(h, SV_HANDOVER_USEC);
	if (handover_adopt(sv) < 0)
		sv_child_signal(&sv->vsockd.child, SIGKILL); /* its successor has another try */
	return true;
}
