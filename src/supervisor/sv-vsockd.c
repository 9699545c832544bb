#include "sv-vsockd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "fdpass.h"
#include "log.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-children.h"
#include "sv-events.h"
#include "sv.h"

#define VSOCKD_TABLE_BYTES (64 * 1024)
#define VSOCKD_STATE_BYTES 4096

#define VSOCKD_YOUNG_USEC  (UINT64_C(1) * 1000000)

void sv_vsockd_init(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	*v = (struct sv_vsockd){ .device_fd = -EBADF,
		.dialed_fd = -EBADF,
		.listen_fd = -EBADF,
		.table_fd = -EBADF,
		.state_fd = -EBADF,
		.keeper_fd = -EBADF,
		.early = { .interval_usec = SV_VSOCKD_WINDOW_USEC, .burst = SV_VSOCKD_EARLY },
		.deaths = { .interval_usec = SV_VSOCKD_WINDOW_USEC, .burst = SV_VSOCKD_DEATHS },
		.strangers = { .interval_usec = SV_VSOCKD_WINDOW_USEC, .burst = SV_VSOCKD_EARLY } };
	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		v->slots[i] = -EBADF;
	sv_child_init(&v->child, sv, "vsockd", SV_VSOCKD_GONE);
}

/* Of a fixed size: nobody can cut it under a process that maps it. */
static int make_memfd(const char *name, off_t bytes)
{
	CLEANUP_CLOSE int fd = fd_memfd(name);

	if (fd < 0)
		return fd;
	if (ftruncate(fd, bytes) < 0 ||
		fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

int sv_vsockd_prepare(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	v->table_fd = make_memfd("uvms-connections", VSOCKD_TABLE_BYTES);
	if (v->table_fd < 0)
		return v->table_fd;
	v->state_fd = make_memfd("uvms-session", VSOCKD_STATE_BYTES);
	return v->state_fd < 0 ? v->state_fd : 0;
}

/* the keeper's channel */

static void keeper_close(struct sv_vsockd *v)
{
	v->keeper_source = sd_event_source_disable_unref(v->keeper_source);
	v->keeper_fd = fd_close(v->keeper_fd);
}

/* WHY is a fixed text. Its end comes as SV_VSOCKD_GONE. */
static void condemn(struct sv *sv, const char *why)
{
	log_warning("%s: uvms-vsockd %s: it is killed and replaced", sv->spec.name, why);
	keeper_close(&sv->vsockd);
	sv_child_signal(&sv->vsockd.child, SIGKILL);
}

static int keeper_send(struct sv_vsockd *v, struct keeper_msg m, int fd)
{
	uint8_t bytes[KEEPER_WIRE_BYTES];
	ssize_t n;

	keeper_wire_put(bytes, &m);
	n = fdpass_send(v->keeper_fd, bytes, sizeof bytes, &fd, fd >= 0);
	return n < 0 ? (int)n : 0;
}

/* -EPROTO: not from vsockd, or not now. */
static int keeper_obey(struct sv *sv, const struct keeper_msg *m, int *fd)
{
	struct sv_vsockd *v = &sv->vsockd;

	switch (m->op) {
	case KEEPER_KEEP:
		fd_close(v->slots[m->slot]);
		v->slots[m->slot] = TAKE_FD(*fd);
		return 0;
	case KEEPER_DROP: v->slots[m->slot] = fd_close(v->slots[m->slot]); return 0;
	case KEEPER_UP:
		log_debug("%s: uvms-vsockd is up after %llu ms", sv->spec.name,
			(unsigned long long)(clock_usec(CLOCK_MONOTONIC) - v->started_usec) / 1000);
		(void)sv_handover_told(sv, KEEPER_UP);
		return 0;
	case KEEPER_STAYS: return sv_handover_told(sv, KEEPER_STAYS) ? 0 : -EPROTO;
	case KEEPER_SERVED: v->served = true; return 0;
	case KEEPER_PONG:
		if (!v->pinging || m->cookie != v->cookie)
			return -EPROTO;
		v->pinging = false;
		return sd_event_source_set_enabled(v->ping_timer, SD_EVENT_OFF);
	default: return -EPROTO;
	}
}

/* 1: a message was obeyed, 0: none waits, -ECONNRESET: the end, -errno: it is to be condemned. */
static int keeper_receive(struct sv *sv)
{
	uint8_t bytes[KEEPER_WIRE_BYTES + 1];
	struct sv_vsockd *v = &sv->vsockd;
	CLEANUP_CLOSE int fd = -EBADF;
	struct keeper_msg m;
	size_t n_fds = 1;
	uint32_t suppressed;
	ssize_t n;
	int r;

	n = fdpass_recv_left(v->keeper_fd, bytes, sizeof bytes, &fd, &n_fds);
	if (n == -EAGAIN)
		return 0;
	if (n <= 0)
		return n < 0 ? (int)n : -ECONNRESET;
	if (!ratelimit_pass(&v->messages, clock_usec(CLOCK_MONOTONIC), &suppressed))
		return -EDQUOT;
	r = keeper_wire_get(bytes, (size_t)n, n_fds, &m);
	if (r == 0)
		r = keeper_obey(sv, &m, &fd);
	return r < 0 ? r : 1;
}

static int on_keeper(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv *sv = userdata;
	int r = keeper_receive(sv);

	if (r == -ECONNRESET)
		keeper_close(&sv->vsockd); /* its end is on its way */
	else if (r == -EDQUOT)
		condemn(sv, "has more to keep than a device can have");
	else if (r < 0)
		condemn(sv, "broke the rules of its keeper's channel");
	return 0;
}

int sv_vsockd_tell(struct sv *sv, int op, int fd)
{
	return keeper_send(&sv->vsockd, (struct keeper_msg){ .op = (uint8_t)op }, fd);
}

void sv_vsockd_drain(struct sv *sv)
{
	while (sv->vsockd.keeper_fd >= 0 && keeper_receive(sv) > 0)
		;
	keeper_close(&sv->vsockd);
}

/* All that is kept goes in before the process begins, so that it never waits. */
static int keeper_offer(struct sv_vsockd *v)
{
	int r = 0;

	for (uint8_t i = 0; r == 0 && i < KEEPER_SLOTS; i++) {
		if (v->slots[i] >= 0)
			r = keeper_send(v, (struct keeper_msg){ KEEPER_KEEP, i, 0 }, v->slots[i]);
	}
	return r < 0 ? r : keeper_send(v, (struct keeper_msg){ .op = KEEPER_GO }, -EBADF);
}

int sv_vsockd_adopt(struct sv *sv, int keeper_fd_consume)
{
	struct sv_vsockd *v = &sv->vsockd;
	int r;

	v->pinging = false;
	if (v->ping_timer)
		sd_event_source_set_enabled(v->ping_timer, SD_EVENT_OFF);
	v->started_usec = clock_usec(CLOCK_MONOTONIC);
	v->messages = (struct ratelimit){ .interval_usec = SV_VSOCKD_WINDOW_USEC,
		.burst = SV_VSOCKD_MESSAGES };
	v->keeper_fd = keeper_fd_consume;
	r = fd_set_nonblock(v->keeper_fd, 1);
	if (r == 0)
		r = keeper_offer(v);
	if (r == 0)
		r = sd_event_add_io(
			sv->event, &v->keeper_source, v->keeper_fd, EPOLLIN, on_keeper, sv);
	return r;
}

static int keeper_open(struct sv *sv, int *ret_theirs)
{
	CLEANUP_CLOSE int theirs = -EBADF;
	int pair[2], r;

	r = sockun_pair(SOCK_SEQPACKET, pair);
	if (r < 0)
		return r;
	theirs = pair[1];
	r = sv_vsockd_adopt(sv, pair[0]);
	if (r < 0)
		return r;
	*ret_theirs = TAKE_FD(theirs);
	return 0;
}

int sv_vsockd_resume(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	v->messages = (struct ratelimit){ .interval_usec = SV_VSOCKD_WINDOW_USEC,
		.burst = SV_VSOCKD_MESSAGES };
	if (v->keeper_fd < 0)
		return 0;
	return sd_event_add_io(sv->event, &v->keeper_source, v->keeper_fd, EPOLLIN, on_keeper, sv);
}

/* is it there? */

static int on_ping_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv *sv = userdata;

	sv->vsockd.pinging = false;
	condemn(sv, "does not answer");
	return 0;
}

void sv_vsockd_ping(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	if (v->pinging || v->keeper_fd < 0 || !sv_child_is_running(&v->child))
		return;
	if (!v->ping_timer) {
		if (sd_event_add_time(sv->event, &v->ping_timer, CLOCK_MONOTONIC, 0, 10000,
			    on_ping_timer, sv) < 0)
			return;
		sd_event_source_set_enabled(v->ping_timer, SD_EVENT_OFF);
	}
	v->cookie++;
	if (keeper_send(v, (struct keeper_msg){ .op = KEEPER_PING, .cookie = v->cookie }, -EBADF) <
		0) {
		condemn(sv, "does not read what it is asked");
		return;
	}
	v->pinging = true;
	sd_event_source_set_time_relative(v->ping_timer, SV_VSOCKD_PONG_USEC);
	sd_event_source_set_enabled(v->ping_timer, SD_EVENT_ONESHOT);
}

/* start and replacement */

static const struct vm_step *find_step(const struct sv *sv)
{
	for (size_t i = 0; i < sv->plan.n_steps; i++) {
		if (sv->plan.steps[i].id == VM_STEP_VSOCKD)
			return &sv->plan.steps[i];
	}
	return NULL;
}

/* Borrowed strings in a vector on the heap. */
static const char **vsockd_arguments(const struct vm_step *step, const char *cid, bool from)
{
	CLEANUP_FREE const char **known = sv_child_arguments(step, "{cid}", cid);
	size_t n = strv_length(step->args);
	const char **argv = known ? calloc(n + 3, sizeof *argv) : NULL;

	if (!argv)
		return NULL;
	memcpy(argv, known, n * sizeof *argv);
	if (from) {
		argv[n] = "--from-fd";
		argv[n + 1] = "8";
	}
	return argv;
}

int sv_vsockd_spawn(struct sv *sv, struct sv_child *c, int keeper_fd, int from_fd)
{
	struct sv_vsockd *v = &sv->vsockd;
	int fds[SPAWN_FDS_MAX] = { v->device_fd, v->listen_fd, v->table_fd, keeper_fd, v->state_fd,
		from_fd };
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 }, { RLIMIT_NOFILE, 4096 } };
	struct spawn spawn = { SPAWN_DEFAULTS, .fds = fds, .n_fds = 5 + (from_fd >= 0),
		.limits = limits, .n_limits = ARRAY_SIZE(limits) };
	char cid[16];

	snprintf(cid, sizeof cid, "%u", sv->status.cid);
	const struct vm_step *step = find_step(sv);
	CLEANUP_FREE const char **argv = step ? vsockd_arguments(step, cid, from_fd >= 0) : NULL;

	if (!argv)
		return -ENOMEM;
	spawn.path = argv[0];
	spawn.argv = argv;
	sv_child_confine(c, &spawn);
	spawn.cwd_fd = sv->vsock_fd;
	return sv_child_start(c, &spawn);
}

int sv_vsockd_start(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;
	CLEANUP_CLOSE int theirs = -EBADF;
	int r;

	v->served = false;
	r = keeper_open(sv, &theirs);
	if (r == 0)
		r = sv_vsockd_spawn(sv, &v->child, theirs, -EBADF);
	if (r == 0)
		sv->status.vsockd_pid = (uint32_t)v->child.pid;
	else
		keeper_close(v);
	return r;
}

/* -ELOOP: one too many within the window. */
static int count_death(struct sv_vsockd *v)
{
	uint64_t now = clock_usec(CLOCK_MONOTONIC);
	uint32_t suppressed;

	if (!ratelimit_pass(&v->deaths, now, &suppressed))
		return -ELOOP;
	return v->served || ratelimit_pass(&v->early, now, &suppressed) ? 0 : -ELOOP;
}

static void blame(struct sv *sv, int error, const char *cause)
{
	if (error == -ELOOP)
		sv_blame(sv, "crashed",
			"uvms-vsockd died again and again (%s): it is not replaced any more",
			cause);
	else
		sv_blame(sv, "crashed", "uvms-vsockd died (%s), and cannot be started again: %s",
			cause, strerror(-error));
}

int sv_vsockd_replace(struct sv *sv, const char *cause)
{
	struct sv_vsockd *v = &sv->vsockd;
	char text[128];
	int r;

	cause = cause ? cause : sv_child_describe(&v->child, text, sizeof text);
	if (v->ping_timer)
		sd_event_source_set_enabled(v->ping_timer, SD_EVENT_OFF);
	sv_vsockd_drain(sv);
	if (sv_child_has_ended(&sv->vmm_child) || sv_child_has_ended(&sv->namespace_child))
		return 1;
	r = count_death(v);
	if (r == 0) {
		sv_child_again(&v->child);
		r = sv_vsockd_start(sv);
	}
	if (r < 0) {
		blame(sv, r, cause);
		return r;
	}
	sv->status.vsockd_replaced++;
	log_warning("%s: %s: replaced", sv->spec.name, cause);
	sv_events_note(sv, "vsockd", cause);
	return 0;
}

static void close_slots(struct sv_vsockd *v)
{
	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		v->slots[i] = fd_close(v->slots[i]);
}

static void close_session(struct sv_vsockd *v)
{
	v->device_fd = fd_close(v->device_fd);
	v->table_fd = fd_close(v->table_fd);
	v->state_fd = fd_close(v->state_fd);
}

void sv_vsockd_forget(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	if (v->ping_timer)
		sd_event_source_set_enabled(v->ping_timer, SD_EVENT_OFF);
	v->pinging = false;
	keeper_close(v);
	close_slots(v);
	close_session(v);
	sv_child_again(&v->child);
	sv->status.vsockd_pid = 0;
}

/* What came by a session, and the process that served it. */
static void session_end(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	sv_child_finish(&v->child);
	keeper_close(v);
	v->ping_timer = sd_event_source_disable_unref(v->ping_timer);
	v->pinging = false;
	close_slots(v);
}

void sv_vsockd_retire(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	session_end(sv);
	close_session(v);
	/* its log goes on */
	(void)sv_logfile_resume(&v->child.log, sv->dir_fd, "vsockd.log");
}

int sv_vsockd_renew(struct sv *sv, int *ret_vmm_fd)
{
	CLEANUP_CLOSE int theirs = -EBADF;
	int pair[2], r;

	r = sv_vsockd_prepare(sv);
	if (r == 0)
		r = sockun_pair(SOCK_STREAM, pair);
	if (r < 0)
		return r;
	theirs = pair[0];
	sv->vsockd.device_fd = pair[1];
	r = sv_vsockd_start(sv);
	if (r == 0)
		*ret_vmm_fd = TAKE_FD(theirs);
	return r;
}

void sv_vsockd_finish(struct sv *sv)
{
	sv_handover_finish(sv);
	session_end(sv);
}

void sv_vsockd_release(struct sv *sv)
{
	struct sv_vsockd *v = &sv->vsockd;

	v->listen_fd = fd_close(v->listen_fd);
	close_session(v);
}

bool sv_vsockd_is_young(const struct sv *sv)
{
	return clock_usec(CLOCK_MONOTONIC) - sv->vsockd.started_usec < VSOCKD_YOUNG_USEC;
}
