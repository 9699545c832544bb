#include "sv-dialed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "control-server.h"
#include "fd.h"
#include "log.h"
#include "sockun.h"
#include "sv-children.h"
#include "sv-vsockd.h"
#include "sv.h"

int sv_dialed_open(struct sv *sv)
{
	int *theirs = &sv->vmm_fds[VMM_FD_VSOCK];
	int fd = sockun_listen_unnamed(sv->dir_fd, ".vhost", 0600, 1, theirs);

	if (fd < 0)
		return fd;
	sv->vsockd.dialed_fd = fd;
	if (geteuid() == 0 &&
		fchownat(*theirs, "", sv->status.uid, sv->status.uid, AT_EMPTY_PATH) < 0)
		return -errno;
	return 0;
}

static bool dialed_has_hung_up(const struct sv_vsockd *v)
{
	struct pollfd p = { .fd = v->device_fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) > 0;
}

static bool dialed_is_vmm(const struct sv *sv, int fd)
{
	struct ucred peer;
	socklen_t len = sizeof peer;

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 &&
	       sv_child_is_running(&sv->vmm_child) && peer.pid == sv->vmm_child.pid;
}

static int dialed_on_absent(sd_event_source *s, uint64_t usec, void *userdata)
{
	sv_happen(userdata, SV_VSOCKD_LOST,
		"the VMM hung up on its vsock device, and has not come back");
	return 0;
}

static int dialed_expect(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;
	int r = 0;

	if (!v->absent_timer)
		r = sd_event_add_time(sv->event, &v->absent_timer, CLOCK_MONOTONIC, 0, 10000,
			dialed_on_absent, sv);
	if (r >= 0)
		r = sd_event_source_set_time_relative(v->absent_timer, SV_DIALED_USEC);
	return r < 0 ? r : sd_event_source_set_enabled(v->absent_timer, SD_EVENT_ONESHOT);
}

/* A new session on FD. */
static int dialed_serve(struct sv *sv, int fd_consume)
{
	struct sv_vsockd *v = &sv->vsockd;
	uint32_t suppressed;
	int r;

	v->device_fd = fd_consume;
	if (v->absent_timer)
		sd_event_source_set_enabled(v->absent_timer, SD_EVENT_OFF);
	if (!ratelimit_pass(&v->deaths, clock_usec(CLOCK_MONOTONIC), &suppressed))
		return -ELOOP;
	r = sv_vsockd_prepare(sv);
	if (r == 0)
		r = sv_vsockd_start(sv);
	if (r == 0)
		sv_status_save(sv);
	return r;
}

static int dialed_on_call(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv *sv = userdata;
	struct sv_vsockd *v = &sv->vsockd;
	CLEANUP_CLOSE int theirs = -EBADF;
	uint32_t suppressed;
	int r;

	if (v->device_fd >= 0 && dialed_has_hung_up(v)) {
		/* whoever is at its end, or hangs, is in the way of the next one */
		sv_child_signal(&v->child, SIGKILL);
		return sd_event_source_set_enabled(s, SD_EVENT_OFF);
	}
	theirs = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
	if (theirs < 0)
		return 0;
	if (v->device_fd >= 0 || !dialed_is_vmm(sv, theirs)) {
		/* as often as a hostile VMM likes */
		if (ratelimit_pass(&v->strangers, clock_usec(CLOCK_MONOTONIC), &suppressed))
			log_warning("%s: somebody else called the vsock device (%u not told)",
				sv->spec.name, suppressed);
		return 0;
	}
	r = dialed_serve(sv, TAKE_FD(theirs));
	if (r < 0) {
		sv_blame(sv, "crashed", "uvms-vsockd cannot be started for the VMM: %s",
			r == -ELOOP ? "it hangs up and comes back again and again" : strerror(-r));
		sv_happen(sv, SV_VSOCKD_LOST, NULL);
	}
	return 0;
}

int sv_dialed_begin(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;
	int r;

	if (v->dialed_fd < 0)
		return 0;
	r = sd_event_add_io(
		sv->event, &v->dialed_source, v->dialed_fd, EPOLLIN, dialed_on_call, sv);
	if (r >= 0)
		r = control_server_pace(v->dialed_source);
	/* in the next image: it may be between two boots */
	return r < 0 || v->device_fd >= 0 || !sv_child_is_running(&sv->vmm_child)
		       ? r
		       : dialed_expect(sv);
}

bool sv_dialed_is_over(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	if (v->dialed_fd < 0 || v->device_fd < 0 || !dialed_has_hung_up(v))
		return false;
	sv_vsockd_forget(sv);
	sv_status_save(sv);
	if (dialed_expect(sv) < 0 || sd_event_source_set_enabled(v->dialed_source, SD_EVENT_ON) < 0)
		sv_happen(sv, SV_VSOCKD_LOST, "the VMM hung up on its vsock device");
	return true;
}

void sv_dialed_finish(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	v->dialed_source = sd_event_source_disable_unref(v->dialed_source);
	v->absent_timer = sd_event_source_disable_unref(v->absent_timer);
	v->dialed_fd = fd_close(v->dialed_fd);
}
