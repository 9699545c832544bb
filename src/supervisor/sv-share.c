#include "sv-share.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "log.h"
#include "str.h"
#include "sv-agent.h"
#include "sv-attach.h"
#include "sv-change.h"
#include "sv-children.h"
#include "sv-choose.h"
#include "sv-events.h"
#include "sv-lend.h"
#include "sv-source.h"
#include "sv-virtiofsd.h"
#include "sv.h"

#define SHARE_TOLD_USEC (UINT64_C(1000) * (AGENT_WIRE_LINK_MS + 2000)) /* for the guest's word */
#define SHARE_ASK_USEC  (UINT64_C(5) * 1000000)                        /* for virtiofsd's */

/* Each phase is what is waited for. */
enum {
	SHARE_IDLE,
	SHARE_ASK,     /* virtiofsd: which it is */
	SHARE_ADD,     /* the VMM */
	SHARE_MOUNT,   /* the agent */
	SHARE_UNMOUNT, /* the agent */
	SHARE_REMOVE,  /* the VMM */
	SHARE_AGAIN,   /* the agent, of a guest that has booted again */
};

static const char *const logs[] = { "virtiofsd0", "virtiofsd1", "virtiofsd2", "virtiofsd3",
	"virtiofsd4", "virtiofsd5", "virtiofsd6", "virtiofsd7" };
static_assert(ARRAY_SIZE(logs) == SV_SHARES_MAX, "a log for each");

static void on_virtiofsd_end(struct sv_child *c);

/* the table */

static void clear(struct sv *sv, struct sv_share *s)
{
	*s = (struct sv_share){ .fd = -EBADF, .listen_fd = -EBADF };
	sv_child_init(&s->child, sv, logs[s - sv->shares], SV_HAPPENINGS);
	s->child.ended = on_virtiofsd_end;
}

void sv_share_init(struct sv *sv)
{
	sv->sharing = (struct sv_sharing){ .fd = -EBADF };
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++)
		clear(sv, &sv->shares[i]);
}

static struct sv_share *find(struct sv *sv, const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (sv->shares[i].kind != SV_SHARE_NONE && str_eq(sv->shares[i].path, path))
			return &sv->shares[i];
	}
	return NULL;
}

static struct sv_share *find_room(struct sv *sv)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (sv->shares[i].kind == SV_SHARE_NONE)
			return &sv->shares[i];
	}
	return NULL;
}

/* Of the device, and its tag. */
static void name(const struct sv *sv, const struct sv_share *s, char out[static 8])
{
	snprintf(out, 8, "%s%u", s->kind == SV_SHARE_DIR ? "fs" : "pmem",
		(unsigned)(s - sv->shares) % SV_SHARES_MAX);
}

static enum vmm_op_kind add_kind(const struct sv_share *s)
{
	return s->kind == SV_SHARE_DIR ? VMM_OP_ADD_FS : VMM_OP_ADD_PMEM;
}

/* What status tells. */
static void note(struct sv *sv)
{
	vm_status_drop_mounts(&sv->status);
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		const struct sv_share *s = &sv->shares[i];

		if (s->kind != SV_SHARE_NONE)
			(void)vm_status_add_mount(&sv->status, s->path,
				s->kind == SV_SHARE_DIR ? "share" : "image", s->source,
				str_or(s->fault, "mounted"));
	}
	sv_status_save(sv);
}

/* Nothing of it is left on this side; the device is gone, or never came. */
static void release(struct sv *sv, struct sv_share *s)
{
	if (s->kind == SV_SHARE_DIR)
		sv_virtiofsd_stop(sv, s);
	if (s->kind == SV_SHARE_IMAGE && s->digest)
		sv_lend_end(sv, s->digest);
	fd_close(s->fd);
	free(s->path);
	free(s->source);
	free(s->digest);
	free(s->program);
	free(s->fault);
	clear(sv, s);
}

/* a change and its end */

static void go_on(struct sv *sv);

static void refuse(struct control_call *call, int error, const char *what, const char *next)
{
	control_call_error(
		call, error, control_error_words(what ? what : strerror(-error), NULL, next));
}

/* The first one is told, when all is over. */
static void fault(struct sv *sv, int error, const char *what, const char *cause)
{
	struct sv_sharing *c = &sv->sharing;

	if (c->error)
		return;
	c->error = error;
	(void)str_set(&c->what, what);
	(void)str_set(&c->cause, cause);
}

static bool can_be_removed(const struct sv *sv, const struct sv_share *s)
{
	return s->kind == SV_SHARE_DIR || (vmm_backend_caps(sv->backend) & VMM_CAP_PMEM_REMOVED);
}

static void answer(struct sv *sv, struct control_call *call)
{
	struct sv_sharing *c = &sv->sharing;
	const struct sv_share *s = c->share;
	CLEANUP_FREE char *next = NULL;

	if (c->stays && can_be_removed(sv, s))
		next = str_printf("uvms detach %s --%s %s takes it away", sv->spec.name,
			s->kind == SV_SHARE_DIR ? "share" : "image", s->path);
	else if (c->stays)
		next = strdup("it stays until the VM ends");

	if (c->error == 0)
		control_call_reply(call, NULL, -EBADF);
	else
		control_call_error(call, c->error, control_error_words(c->what, c->cause, next));
}

static void be_over(struct sv *sv)
{
	struct sv_sharing *c = &sv->sharing;
	struct control_call *call = TAKE_PTR(c->call);

	c->timer = sd_event_source_disable_unref(c->timer);
	c->phase = SHARE_IDLE;
	c->fd = fd_close(c->fd);
	/* before it is told: who is told looks there */
	note(sv);
	if (call)
		answer(sv, call);
	free(TAKE_PTR(c->what));
	free(TAKE_PTR(c->cause));
	c->error = 0;
	c->stays = false;
	c->share = NULL;
	go_on(sv);
}

/* It was not to be, and nothing stays. */
static void fail(struct sv *sv, int error, const char *what, const char *cause)
{
	fault(sv, error, what, cause);
	release(sv, sv->sharing.share);
	be_over(sv);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata);

static int set_phase(struct sv *sv, int phase, uint64_t usec)
{
	struct sv_sharing *c = &sv->sharing;

	c->phase = phase;
	c->timer = sd_event_source_disable_unref(c->timer);
	return usec == 0 ? 0
			 : sd_event_add_time_relative(
				   sv->event, &c->timer, CLOCK_MONOTONIC, usec, 0, on_timer, sv);
}

/* the agent */

static int send_mount(struct sv *sv, const struct sv_share *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_MOUNT };
	char tag[8];

	name(sv, s, tag);
	m.mount.kind = s->kind == SV_SHARE_DIR ? AGENT_MOUNT_VIRTIOFS : AGENT_MOUNT_PMEM;
	m.mount.bytes = s->bytes;
	if (s->kind == SV_SHARE_DIR)
		m.mount.tag = wire_str_from(tag);
	m.mount.path = wire_str_from(s->path);
	return sv_agent_mount(sv->agent, &m);
}

static int send_unmount(struct sv *sv, const struct sv_share *s)
{
	struct agent_wire_msg m = { .type = AGENT_WIRE_UNMOUNT };

	m.unmount.path = wire_str_from(s->path);
	return sv_agent_mount(sv->agent, &m);
}

static const char *guest_words(int error)
{
	switch (error) {
	case -ENODEV: return "its kernel has no driver for it";
	case -ETIMEDOUT: return "its kernel shows no such device";
	default: return strerror(-error);
	}
}

static void remove_device(struct sv *sv);

/* What a VMM cannot take away stays, and is told. */
static void not_mounted(struct sv *sv, int error, const char *cause)
{
	struct sv_share *s = sv->sharing.share;

	fault(sv, error, "the guest has the device, and did not mount it", cause);
	(void)str_set(&s->fault, cause);
	sv->sharing.stays = !can_be_removed(sv, s);
	if (sv->sharing.stays)
		be_over(sv);
	else
		remove_device(sv);
}

static void ask_mount(struct sv *sv)
{
	int r = set_phase(sv, SHARE_MOUNT, SHARE_TOLD_USEC);

	sv_share_wake(sv); /* stopped, it would hold up the guest */
	if (r >= 0)
		r = send_mount(sv, sv->sharing.share);
	if (r < 0)
		not_mounted(sv, r, strerror(-r));
}

static void not_unmounted(struct sv *sv, int error, const char *cause)
{
	fault(sv, error,
		error == -EBUSY ? "it is in use in the guest" : "the guest did not unmount it",
		cause);
	be_over(sv);
}

static void ask_unmount(struct sv *sv)
{
	int r = set_phase(sv, SHARE_UNMOUNT, SHARE_TOLD_USEC);

	sv_share_wake(sv);
	if (r >= 0)
		r = send_unmount(sv, sv->sharing.share);
	if (r < 0)
		not_unmounted(sv, r, strerror(-r));
}

static void mounted_again(struct sv *sv, int error, const char *cause)
{
	struct sv_share *s = sv->sharing.share;

	if (!s->lost)
		(void)str_set(&s->fault, error ? cause : NULL);
	if (error)
		log_warning("%s: %s is not mounted again: %s", sv->spec.name, s->path, cause);
	else
		s->restarts = 0;
	be_over(sv);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
	static const char late[] = "its agent does not answer";
	struct sv *sv = userdata;

	switch (sv->sharing.phase) {
	case SHARE_ASK: sv_child_signal(&sv->sharing.share->child, SIGKILL); break;
	case SHARE_MOUNT: not_mounted(sv, -ETIMEDOUT, late); break;
	case SHARE_UNMOUNT: not_unmounted(sv, -ETIMEDOUT, late); break;
	case SHARE_AGAIN: mounted_again(sv, -ETIMEDOUT, late); break;
	default: break;
	}
	return 0;
}

void sv_share_told(struct sv *sv, int error)
{
	struct sv_share *s = sv->sharing.share;

	error = -error;
	switch (sv->sharing.phase) {
	case SHARE_MOUNT:
		if (error == 0)
			free(TAKE_PTR(s->fault));
		if (error == 0)
			be_over(sv);
		else
			not_mounted(sv, error, guest_words(error));
		break;
	case SHARE_UNMOUNT:
		/* EINVAL: it is not mounted, and that is what was wanted */
		if (error == 0 || error == -EINVAL)
			remove_device(sv);
		else
			not_unmounted(sv, error, error == -EBUSY ? NULL : strerror(-error));
		break;
	case SHARE_AGAIN: mounted_again(sv, error, guest_words(error)); break;
	default: break; /* too late */
	}
}

/* What was asked by way of another channel may be lost, or its answer. */
void sv_share_agent_called(struct sv *sv)
{
	const struct sv_share *s = sv->sharing.share;

	if (sv->sharing.phase == SHARE_MOUNT || sv->sharing.phase == SHARE_AGAIN)
		(void)send_mount(sv, s);
	if (sv->sharing.phase == SHARE_UNMOUNT)
		(void)send_unmount(sv, s);
}

/* The next one of those that the guest is to be told of again. */
static void go_on(struct sv *sv)
{
	struct sv_sharing *c = &sv->sharing;
	int i, r;

	if (c->phase != SHARE_IDLE || !c->again)
		return;
	i = __builtin_ctz(c->again);
	c->again &= ~(1U << i);
	c->share = &sv->shares[i];
	if (c->share->kind == SV_SHARE_NONE || c->share->gone || c->share->lost) {
		go_on(sv);
		return;
	}
	r = set_phase(sv, SHARE_AGAIN, SHARE_TOLD_USEC);
	if (r >= 0)
		r = send_mount(sv, c->share);
	if (r < 0)
		mounted_again(sv, r, strerror(-r));
}

/* One that is being attached is asked for anyway. */
void sv_share_again(struct sv *sv)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (sv->shares[i].kind != SV_SHARE_NONE && &sv->shares[i] != sv->sharing.share)
			sv->sharing.again |= 1U << i;
	}
	go_on(sv);
}

/* the VMM */

static void lost(struct sv *sv, struct sv_share *s);

static void removed(struct sv *sv, int error, const char *reason)
{
	struct sv_sharing *c = &sv->sharing;
	bool was_lost = c->share->lost || c->share->gone;

	if (error < 0) {
		fault(sv, error, "the VMM did not take the device away",
			str_or(reason, strerror(-error)));
		c->stays = true;
		if (!was_lost)
			(void)str_set(&c->share->fault, "not mounted; the device is still there");
		if (c->share->kind == SV_SHARE_DIR && !was_lost &&
			!sv_child_is_running(&c->share->child))
			lost(sv, c->share);
		be_over(sv);
		return;
	}
	/* with its device the requests have failed that nobody served: now it can be unmounted */
	if (was_lost)
		(void)send_unmount(sv, c->share);
	release(sv, c->share);
	be_over(sv);
}

static void remove_device(struct sv *sv)
{
	struct sv_share *s = sv->sharing.share;
	char id[8];
	int r = set_phase(sv, SHARE_REMOVE, 0);

	if (s->gone) {
		removed(sv, 0, NULL);
		return;
	}
	name(sv, s, id);
	if (r >= 0)
		r = sv_change_do(sv,
			&(struct vmm_op){ .kind = VMM_OP_REMOVE,
				.added = add_kind(s),
				.id = id,
				.slot = s->slot },
			removed);
	if (r < 0)
		removed(sv, r, NULL);
}

/* How it ended, and its last line (heap); NULL: neither is known. */
static char *last_words(struct sv_share *s)
{
	CLEANUP_FREE char *said = NULL;
	char how[128];
	char *line;

	sv_child_catch_up(&s->child);
	said = sv_logfile_tail(&s->child.log, 300);
	for (size_t n = said ? strlen(said) : 0; n > 0 && said[n - 1] == '\n'; n--)
		said[n - 1] = 0;
	line = said ? strrchr(said, '\n') : NULL;
	line = line ? line + 1 : said;
	if (sv_child_is_running(&s->child))
		return line && *line ? strdup(line) : NULL;
	sv_child_describe(&s->child, how, sizeof how);
	return line && *line ? str_printf("%s; it said: %s", how, line) : strdup(how);
}

static const char ended_early[] = "virtiofsd ended as soon as it had begun";

/* What virtiofsd said explains more than what the VMM makes of it. */
static void refused(struct sv *sv, struct sv_share *s, int error, const char *reason)
{
	CLEANUP_FREE char *said = s->kind == SV_SHARE_DIR ? last_words(s) : NULL;
	CLEANUP_FREE char *cause =
		said && !s->lost ? str_printf("%s; virtiofsd said: %s", reason, said) : NULL;

	fail(sv, error, s->lost ? ended_early : "the VMM refused",
		s->lost ? said : str_or(cause, reason));
}

static void added(struct sv *sv, int error, const char *reason)
{
	struct sv_share *s = sv->sharing.share;

	sv->sharing.fd = fd_close(sv->sharing.fd); /* the VMM has its own */
	if (error < 0) {
		refused(sv, s, error, str_or(reason, strerror(-error)));
	} else if (s->lost) {
		CLEANUP_FREE char *said = last_words(s);

		fault(sv, -EIO, ended_early, said);
		remove_device(sv);
	} else {
		ask_mount(sv);
	}
}

static void add_device(struct sv *sv, struct sv_share *s, int fd, const char *path)
{
	char id[8];
	int r = set_phase(sv, SHARE_ADD, 0);

	name(sv, s, id);
	if (sv->state != SV_RUNNING)
		r = -EBUSY;
	if (r >= 0)
		r = sv_change_do(sv,
			&(struct vmm_op){
				.kind = s->kind == SV_SHARE_DIR ? VMM_OP_ADD_FS : VMM_OP_ADD_PMEM,
				.id = id,
				.tag = id,
				.fd = fd,
				.path = path,
				.bytes = s->bytes,
				.slot = s->slot },
			added);
	if (r < 0)
		added(sv, r, NULL);
}

/* virtiofsd */

static void start_virtiofsd(struct sv *sv, struct sv_share *s)
{
	CLEANUP_FREE char *cause = NULL, *path = sv_virtiofsd_socket(sv, s);
	const char *next = NULL;
	int r = sv_virtiofsd_told(s, &cause, &next);

	if (r == -EOPNOTSUPP) {
		CLEANUP_FREE char *why = str_printf("%s; %s", cause, next);

		fail(sv, r, "a shared directory: not supported here", why);
		return;
	}
	r = path ? sv_virtiofsd_start(sv, s, &sv->sharing.fd) : -ENOMEM;
	if (r < 0)
		fail(sv, r, "virtiofsd cannot be started", strerror(-r));
	else
		add_device(sv, s, sv->sharing.fd, path);
}

static bool is_leaving(const struct sv *sv)
{
	return sv->state >= SV_STOP_AGENT || sv->guest_shutdown || sv->finished;
}

/*
 * A VMM that dials comes again when its guest boots, and finds the next one; a mount that was there before is of no use
 * then. For any other the device leads nowhere.
 */
static void lost(struct sv *sv, struct sv_share *s)
{
	bool dials = s->listen_fd >= 0;
	int r = dials ? sv_virtiofsd_again(sv, s) : -ENOTCONN;
	CLEANUP_FREE char *said = r < 0 ? last_words(s) : NULL;

	s->lost = r < 0;
	if (s->lost)
		sv_virtiofsd_hang_up(sv, s);
	(void)str_set(&s->fault, s->lost ? "lost: virtiofsd ended; detach it, and attach it again"
					 : "lost: virtiofsd was started again, and serves when the "
					   "guest has booted");
	if (s->lost)
		log_warning("%s: the guest has lost %s: virtiofsd ended: %s", sv->spec.name,
			s->path, str_or(said, "?"));
	if (s->lost || s->child.end.si_status != 0) /* 0: it was hung up on, as at each boot */
		sv_events_note(sv, "share",
			s->lost ? "virtiofsd ended: a share is lost"
				: "virtiofsd ended, and was started again");
	note(sv);
}

static void on_virtiofsd_end(struct sv_child *c)
{
	struct sv *sv = c->sv;
	struct sv_share *s =
		(struct sv_share *)(void *)((char *)c - offsetof(struct sv_share, child));
	int phase = s == sv->sharing.share ? sv->sharing.phase : SHARE_IDLE;

	if (phase == SHARE_ASK) {
		start_virtiofsd(sv, s);
	} else if (phase == SHARE_ADD) {
		/* who is being connected to it is hung up on, and told so by the VMM */
		s->lost = true;
		sv_virtiofsd_hang_up(sv, s);
	} else if (phase == SHARE_MOUNT) {
		CLEANUP_FREE char *said = last_words(s);

		s->lost = true;
		sv_virtiofsd_hang_up(sv, s);
		fault(sv, -EIO, ended_early, said);
		not_mounted(sv, -EIO, "virtiofsd ended");
	} else if (phase != SHARE_REMOVE && !s->gone && !is_leaving(sv)) {
		lost(sv, s);
	}
}

/* attach */

/* Before anything but the table was touched. */
static void give_up(struct sv *sv, int error, const char *what, const char *next)
{
	struct control_call *call = TAKE_PTR(sv->sharing.call);

	release(sv, sv->sharing.share);
	be_over(sv);
	refuse(call, error, what, next);
}

static void attach_directory(struct sv *sv, struct sv_share *s, const char *directory)
{
	CLEANUP_FREE char *reason = NULL;
	const char *next = NULL;
	int r = sv_source_directory(s, directory, &reason);

	if (r == 0)
		r = vm_virtiofsd_find(&s->program);
	if (r == -ENOENT && !reason) {
		r = -EOPNOTSUPP;
		reason = strdup(
			"a shared directory: not supported here, virtiofsd is not installed");
		next = VM_VIRTIOFSD_REMEDY;
	}
	if (r == 0)
		r = set_phase(sv, SHARE_ASK, SHARE_ASK_USEC);
	if (r >= 0)
		r = sv_virtiofsd_ask(s);
	if (r < 0)
		give_up(sv, r, reason, next);
}

static void attach_image(struct sv *sv, struct sv_share *s)
{
	CLEANUP_FREE char *reason = NULL, *path = NULL;
	int r = sv_source_image(sv, s, &path, &reason);

	if (r < 0)
		give_up(sv, r, reason, NULL);
	else
		add_device(sv, s, s->fd, path);
}

static void attach(struct sv *sv, struct control_call *call, const struct sv_share_ask *ask,
	struct sv_share *s, uint32_t slot)
{
	s->slot = slot;
	if (str_set(&s->path, ask->path) < 0 || str_set(&s->source, ask->image) < 0 ||
		str_set(&s->fault, "is being attached") < 0) {
		release(sv, s);
		refuse(call, -ENOMEM, NULL, NULL);
		return;
	}
	s->kind = ask->image ? SV_SHARE_IMAGE : SV_SHARE_DIR;
	sv->sharing.share = s;
	sv->sharing.call = call;
	if (ask->image)
		attach_image(sv, s);
	else
		attach_directory(sv, s, ask->directory);
}

static void refuse_for_agent(struct control_call *call, int error)
{
	if (error == -ENOTCONN)
		refuse(call, error, "the agent in the guest cannot be reached", "try again");
	else
		refuse(call, error, "the agent in the guest is of an older uvms",
			"uvms restart starts it with this one");
}

/* False: CALL was told what is in the way of any change. */
static bool is_quiet(struct sv *sv, struct control_call *call)
{
	if (sv_change_is_under_way(sv) || sv->sharing.phase != SHARE_IDLE)
		refuse(call, -EBUSY, "another change is under way: try again", NULL);
	else if (sv->state != SV_RUNNING)
		refuse(call, -EBUSY, "it does not run", NULL);
	else
		return true;
	return false;
}

/* The same for what this VM can never have. */
static bool can_have(struct sv *sv, struct control_call *call, const struct sv_share_ask *ask)
{
	unsigned caps = vmm_backend_caps(sv->backend);
	CLEANUP_FREE char *what = str_printf("%s for a VM that runs: not supported by back-end %s",
		ask->image ? "an image" : "a shared directory", vmm_backend_name(sv->backend));

	if (!(caps & (ask->image ? VMM_CAP_PMEM_LIVE : VMM_CAP_FS_LIVE)))
		refuse(call, -EOPNOTSUPP, what, NULL);
	else if (!ask->image && !sv_choose_vsockd(sv))
		refuse(call, -EOPNOTSUPP,
			"a shared directory: its memory is closed to other processes",
			"uvms run --vsock=uvms makes its memory shared");
	else
		return true;
	return false;
}

void sv_share_attach(struct sv *sv, struct control_call *call, const struct sv_share_ask *ask)
{
	int slot = sv_attach_slot(sv), can = sv_agent_can(sv->agent, AGENT_WIRE_VERSION_MOUNT);
	struct sv_share *s = find_room(sv);
	CLEANUP_FREE char *reason = NULL;
	int r = sv_source_check_path(ask->path, &reason);

	if (r < 0)
		refuse(call, r, reason, NULL);
	else if (!can_have(sv, call, ask) || !is_quiet(sv, call))
		return;
	else if (find(sv, ask->path) || sv_source_is_volume(sv, ask->path))
		refuse(call, -EBUSY, "something is attached there already", NULL);
	else if (!s)
		refuse(call, -EBUSY, "it has as many shares and images as there can be", NULL);
	else if (slot < 0)
		refuse(call, -EOPNOTSUPP, "it has no free slot for another device",
			"--hotplug-slots of uvms run makes some");
	else if (can < 0)
		refuse_for_agent(call, can);
	else
		attach(sv, call, ask, s, (uint32_t)slot);
}

void sv_share_detach(struct sv *sv, struct control_call *call, const char *path, bool is_image)
{
	struct sv_share *s = find(sv, path);
	CLEANUP_FREE char *not_here =
		str_printf("not supported by back-end %s: it stays until the VM ends",
			vmm_backend_name(sv->backend));

	if (!s || (s->kind == SV_SHARE_IMAGE) != is_image) {
		refuse(call, -ENOENT,
			is_image ? "no image is attached there"
				 : "no shared directory is attached there",
			NULL);
		return;
	}
	if (is_image && !(vmm_backend_caps(sv->backend) & VMM_CAP_PMEM_REMOVED)) {
		refuse(call, -EOPNOTSUPP, not_here, NULL);
		return;
	}
	if (!is_quiet(sv, call))
		return;
	sv->sharing.share = s;
	sv->sharing.call = call;
	if (s->gone || s->lost)
		remove_device(sv);
	else
		ask_unmount(sv);
}

void sv_share_gone(struct sv *sv, const char *id)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		struct sv_share *s = &sv->shares[i];
		char its[8];

		name(sv, s, its);
		if (s->kind == SV_SHARE_NONE || !str_eq(id, its))
			continue;
		s->gone = true;
		(void)str_set(&s->fault, "lost: the guest gave its device up");
		note(sv);
	}
}

bool sv_share_is_under_way(const struct sv *sv)
{
	return sv->sharing.phase != SHARE_IDLE && sv->sharing.phase != SHARE_AGAIN;
}

void sv_share_wake(const struct sv *sv)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++)
		sv_virtiofsd_wake(&sv->shares[i].child);
}

void sv_share_forget(struct sv *sv, struct control_call *call)
{
	if (sv->sharing.call == call)
		sv->sharing.call = NULL;
}

void sv_share_finish(struct sv *sv)
{
	sv->sharing.again = 0;
	fault(sv, -ESHUTDOWN, "the VM ended", NULL);
	sv->sharing.share = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++)
		release(sv, &sv->shares[i]);
	be_over(sv);
}
