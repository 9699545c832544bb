/*
 * Cloud Hypervisor, on KVM.
 *
 * It starts empty and is told by calls what to run: vmm.ping (is it new enough?), vm.create (which checks
 * nothing), vm.add-net with the TAP beside it (vm.create takes no descriptors), vm.boot (where every mistake
 * comes out). The socket was made by us and has no name left, so nobody else reaches it. Afterwards the event
 * stream says what happens; replies and events are equally hostile, and only known words count.
 *
 * How it ended is in no single place. Exit status 0 says nothing: a power-off, a SIGTERM and a vCPU that
 * failed all end so, and all with the event "vm shutdown". With --no-shutdown (v52 and later) a guest's
 * power-off leaves the process alone, and its loop serves calls again; on the way to an end it serves none. So
 * after that event it is asked (vmm.ping): an answer makes it a power-off, and then it is told to end. Before
 * v52 the event alone has to do. A reboot stays in the process, so where a reset shall end the VM the caller
 * kills it (no VMM_CAP_REBOOT_ENDS).
 */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "ch-api.h"
#include "ch-config.h"
#include "ch-event-wire.h"
#include "ch-version.h"
#include "cleanup.h"
#include "fd.h"
#include "str.h"
#include "vmm-impl.h"
#include "vmm-program.h"

#define SEC UINT64_C(1000000)

/* How long a call may take. An absent vhost-user back-end blocks vm.boot and vm.add-fs for 60 s. */
static const struct {
	const char *method, *name;
	uint64_t deadline_usec;
} ch_calls[] = {
	{ "GET", "vmm.ping", 5 * SEC },
	{ "PUT", "vm.create", 10 * SEC },
	{ "PUT", "vm.add-net", 10 * SEC },
	{ "PUT", "vm.boot", 65 * SEC },
	{ "PUT", "vm.power-button", 5 * SEC },
	{ "PUT", "vm.pause", 10 * SEC },
	{ "PUT", "vm.resume", 10 * SEC },
	{ "PUT", "vm.resize", 10 * SEC },
	{ "PUT", "vm.add-disk", 10 * SEC },
	{ "PUT", "vm.add-pmem", 10 * SEC },
	{ "PUT", "vm.add-fs", 65 * SEC },
	{ "PUT", "vm.remove-device", 10 * SEC },
	{ "PUT", "vm.snapshot", VMM_SNAPSHOT_USEC },
	{ "PUT", "vm.restore", VMM_SNAPSHOT_USEC },
	{ "PUT", "vmm.shutdown", 3 * SEC },
};

struct vmm_ch {
	struct ch_api *api;      /* owned */
	sd_event_source *events; /* owned */
	int events_fd, net_fd;   /* owned */
	char **bodies;           /* owned: what is still to be sent, and was */
	char *op_body;           /* owned: of the present operation, or the last */
	char *removing;          /* owned: the device whose end is waited for; NULL: none */
	size_t n_starting;       /* calls of the start that have not ended */
	uint32_t version;        /* as vmm.ping said; 0: not known */
	const char *owed;        /* static: the call that had no answer when it was over */
	bool probing;            /* vmm.ping is to tell a power-off from an end */
	bool is_blind;           /* its event stream has ended */
	bool quitting, over;
	size_t len;
	char text[CH_EVENT_MAX];
};

static int ch_queue(struct vmm_ch *ch, const char *name, const char *body, int fd)
{
	for (size_t i = 0; i < ARRAY_SIZE(ch_calls); i++) {
		if (str_eq(ch_calls[i].name, name))
			return ch_api_call(
				ch->api, &(struct ch_call){ .method = ch_calls[i].method,
						 .name = ch_calls[i].name,
						 .body = body,
						 .fd = fd,
						 .deadline_usec = ch_calls[i].deadline_usec });
	}
	return -EINVAL;
}

/* Nothing is asked of it any more. */
static void ch_end(struct vmm *v, enum vmm_event event, const char *call, const char *text)
{
	struct vmm_ch *ch = v->impl;
	CLEANUP_FREE char *detail = str_printf("%s: %s", call, text);

	if (ch->over)
		return;
	ch->over = true;
	if (ch->events)
		sd_event_source_set_enabled(ch->events, SD_EVENT_OFF);
	vmm_emit(v, event, detail);
}

/* Without its events nothing would be known of the guest; most often it is just about to end. */
static void ch_end_if_blind(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	if (ch->is_blind && !ch_api_current(ch->api))
		ch_end(v, VMM_EVENT_CLOSED, "--event-monitor", "it closed its event stream");
}

/* The guest has powered off; the process waits for us, or (before v52) ends by itself. */
static void ch_powered_off(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	ch->probing = false;
	ch->quitting = true;
	vmm_emit(v, VMM_EVENT_SHUTDOWN, NULL);
	if (ch_queue(ch, "vmm.shutdown", NULL, -EBADF) < 0)
		ch_end(v, VMM_EVENT_FAULT, "vmm.shutdown", "too many calls wait");
}

/* The start goes on by the queue; a version that is too old was found out by the plan, unless it lied. */
static void ch_on_done(struct vmm *v, const char *name, const char *text)
{
	struct vmm_ch *ch = v->impl;
	const char *version = strstr(text, "\"version\":\"");

	if (str_eq(name, "vmm.ping") && ch->n_starting > 0) {
		ch->version = version ? ch_version_parse(version) : 0;
		if (ch->version < CH_VERSION_MIN) {
			ch_end(v, VMM_EVENT_FAULT, name,
				"its version is too old, or it is something else");
			return;
		}
	}
	if (ch->n_starting > 0 && --ch->n_starting == 0)
		vmm_emit(v, VMM_EVENT_UP, NULL);
	else if (str_eq(name, "vmm.shutdown")) /* a moment is left to it */
		ch_end(v, VMM_EVENT_CLOSED, name, "it lives on");
}

/* Its loop is there if it answers; on the way to an end others do it in its place: "API response receive error". */
static bool ch_is_probe(const struct vmm_ch *ch, const struct ch_call *call)
{
	return ch->probing && ch->n_starting == 0 && str_eq(call->name, "vmm.ping");
}

static const char *const ch_operations[] = {
	[VMM_OP_PAUSE] = "vm.pause",
	[VMM_OP_RESUME] = "vm.resume",
	[VMM_OP_MEMORY] = "vm.resize",
	[VMM_OP_CPUS] = "vm.resize",
	[VMM_OP_ADD_DISK] = "vm.add-disk",
	[VMM_OP_ADD_NET] = "vm.add-net",
	[VMM_OP_ADD_PMEM] = "vm.add-pmem",
	[VMM_OP_ADD_FS] = "vm.add-fs",
	[VMM_OP_REMOVE] = "vm.remove-device",
	[VMM_OP_SNAPSHOT] = "vm.snapshot",
	[VMM_OP_VSOCK_OUT] = NULL, /* its own can be saved */
	[VMM_OP_VSOCK_IN] = NULL,
};
static_assert(ARRAY_SIZE(ch_operations) == VMM_OPS, "every operation has a call");

static bool ch_is_operation(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(ch_operations); i++) {
		if (str_eq(ch_operations[i], name))
			return true;
	}
	return false;
}

static void ch_op_refused(struct vmm *v, const char *name, const char *text)
{
	CLEANUP_FREE char *reason = str_printf("%s: %s", name, text);
	struct vmm_ch *ch = v->impl;

	free(TAKE_PTR(ch->removing));
	vmm_op_end(v, -EIO, reason);
}

static void ch_on_call(const struct ch_call *call, enum ch_api_end end, const char *text,
	size_t len, void *userdata)
{
	struct vmm *v = userdata;
	struct vmm_ch *ch = v->impl;

	if (ch->over)
		return;
	if (ch_is_probe(ch, call)) {
		if (end == CH_API_DONE)
			ch_powered_off(v);
		else
			ch_end(v, end <= CH_API_LOST ? VMM_EVENT_CLOSED : VMM_EVENT_FAULT,
				call->name, text);
		return;
	}
	if (end >= CH_API_LOST && !ch->probing)
		ch->owed = call->name;
	switch (end) {
	case CH_API_DONE:
		/* a removal is done when the event says so */
		if (str_eq(call->name, "vm.remove-device"))
			break;
		if (ch->n_starting == 0 && ch_is_operation(call->name))
			vmm_op_end(v, 0, NULL);
		else
			ch_on_done(v, call->name, text);
		break;
	case CH_API_REFUSED:
		/* a power button that is refused shows by what does not happen: it has a deadline above */
		if (ch->n_starting == 0 && ch_is_operation(call->name))
			ch_op_refused(v, call->name, text);
		else if (ch->n_starting > 0 || str_eq(call->name, "vmm.shutdown"))
			ch_end(v, VMM_EVENT_FAULT, call->name, text);
		break;
	case CH_API_LOST: ch_end(v, VMM_EVENT_CLOSED, call->name, text); break;
	case CH_API_SILENT:
	case CH_API_BAD: ch_end(v, VMM_EVENT_FAULT, call->name, text); break;
	}
	ch_end_if_blind(v);
}

static void ch_on_shutdown(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	if (ch->quitting || ch->probing)
		return;
	if (ch->version != 0 && !ch_version_has(ch->version, CH_FEATURE_NO_SHUTDOWN)) {
		ch_powered_off(v);
		return;
	}
	ch->probing = true;
	if (ch_queue(ch, "vmm.ping", NULL, -EBADF) < 0)
		ch_end(v, VMM_EVENT_FAULT, "vmm.ping", "too many calls wait");
}

static void ch_on_removed(struct vmm *v, const char *id)
{
	struct vmm_ch *ch = v->impl;

	if (!str_eq(ch->removing, id)) {
		if (id)
			vmm_emit(v, VMM_EVENT_REMOVED, id);
		return;
	}
	free(TAKE_PTR(ch->removing));
	vmm_op_end(v, 0, NULL);
}

static void ch_on_event(struct vmm *v, const struct ch_event *e)
{
	if (str_eq(e->source, "guest") && str_eq(e->event, "panic"))
		vmm_emit(v, VMM_EVENT_PANICKED, e->event);
	else if (str_eq(e->source, "vm") && str_eq(e->event, "rebooting"))
		vmm_emit(v, VMM_EVENT_RESET, e->event);
	else if (str_eq(e->source, "vm") && str_eq(e->event, "device-removed"))
		ch_on_removed(v, e->id);
	else if (str_eq(e->source, "vm") && str_eq(e->event, "shutdown"))
		ch_on_shutdown(v);
}

static int ch_on_stream(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct vmm *v = userdata;
	struct vmm_ch *ch = v->impl;
	ssize_t n = read(fd, ch->text + ch->len, sizeof ch->text - ch->len);
	struct ch_event e;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		sd_event_source_set_enabled(s, SD_EVENT_OFF);
		ch->is_blind = true;
		ch_end_if_blind(v);
		return 0;
	}
	ch->len += (size_t)n;
	while (!ch->over && (n = ch_event_next(ch->text, ch->len, &e)) > 0) {
		ch->len -= (size_t)n;
		memmove(ch->text, ch->text + n, ch->len);
		ch_on_event(v, &e);
	}
	if (n < 0)
		ch_end(v, VMM_EVENT_FAULT, "--event-monitor", "an event longer than any can be");
	return 0;
}

static void ch_detach(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	if (!ch)
		return;
	ch_api_destroy(ch->api);
	sd_event_source_disable_unref(ch->events);
	fd_close(ch->events_fd);
	fd_close(ch->net_fd);
	strv_free(ch->bodies);
	free(ch->op_body);
	free(ch->removing);
	free(ch);
	v->impl = NULL;
}

static int ch_open(struct vmm *v, const struct vmm_channels *c)
{
	struct vmm_ch *ch = calloc(1, sizeof *ch);
	int r;

	if (!ch) {
		vmm_channels_close(c);
		return -ENOMEM;
	}
	v->impl = ch;
	ch->events_fd = c->events_fd;
	ch->net_fd = c->net_fd;
	fd_close(c->restore_fd);
	r = ch_api_create_consume(v->event, c->control_fd, ch_on_call, v, &ch->api);
	if (r >= 0)
		r = fd_set_nonblock(ch->events_fd, 1);
	if (r >= 0)
		r = sd_event_add_io(v->event, &ch->events, ch->events_fd, EPOLLIN, ch_on_stream, v);
	if (r < 0)
		ch_detach(v);
	return r;
}

static bool ch_takes_tap(const char *name)
{
	return str_eq(name, "vm.add-net") || str_eq(name, "vm.restore");
}

/* CALL is "METHOD NAME BODY"; the method goes by the name. The copy lives as long as the queue may need it. */
static int ch_queue_text(struct vmm_ch *ch, const char *call)
{
	char *name, *body;
	int r;

	r = strv_push(&ch->bodies, call);
	if (r < 0)
		return r;
	name = strchr(ch->bodies[strv_length(ch->bodies) - 1], ' ');
	if (!name)
		return -EINVAL;
	name++;
	body = strchr(name, ' ');
	if (body)
		*body++ = 0;
	r = ch_queue(ch, name, body, ch_takes_tap(name) ? ch->net_fd : -EBADF);
	if (r == 0)
		ch->n_starting++;
	return r;
}

static int ch_attach_consume(struct vmm *v, const struct vmm_channels *c, const char *const *calls)
{
	int r = ch_open(v, c);

	for (; r >= 0 && calls && *calls; calls++)
		r = ch_queue_text(v->impl, *calls);
	if (r < 0)
		ch_detach(v);
	return r;
}

static int ch_power_button(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	return ch->over ? -ENOTCONN : ch_queue(ch, "vm.power-button", NULL, -EBADF);
}

static int ch_quit(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	ch->quitting = true;
	return ch->over ? -ENOTCONN : ch_queue(ch, "vmm.shutdown", NULL, -EBADF);
}

/* *RET NULL: it has none. */
static int ch_op_body(const struct vmm_op *op, char **ret)
{
	switch (op->kind) {
	case VMM_OP_MEMORY:
		*ret = str_printf("{\"desired_ram\":%llu}", (unsigned long long)op->bytes);
		break;
	case VMM_OP_CPUS: *ret = str_printf("{\"desired_vcpus\":%u}", op->cpus); break;
	case VMM_OP_ADD_DISK: *ret = ch_config_disk(op); break;
	case VMM_OP_ADD_NET: *ret = ch_config_net(op->mac); break;
	case VMM_OP_ADD_PMEM: *ret = ch_config_pmem(op); break;
	case VMM_OP_ADD_FS: *ret = ch_config_fs(op); break;
	case VMM_OP_REMOVE: *ret = str_printf("{\"id\":\"%s\"}", op->id); break;
	case VMM_OP_SNAPSHOT: *ret = ch_config_url("destination_url", op->path); break;
	default: return 0;
	}
	return *ret ? 0 : -ENOMEM;
}

static void ch_forget(struct vmm *v)
{
	struct vmm_ch *ch = v->impl;

	free(TAKE_PTR(ch->removing));
}

static int ch_operate(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_ch *ch = v->impl;

	char *body = NULL;
	int r;

	if (ch->over)
		return -ENOTCONN;
	r = ch_op_body(op, &body);
	if (r < 0)
		return r;
	/* the one before it has ended */
	free(ch->op_body);
	ch->op_body = body;
	if (op->kind == VMM_OP_REMOVE && str_set(&ch->removing, op->id) < 0)
		return -ENOMEM;
	return ch_queue(
		ch, ch_operations[op->kind], body, op->kind == VMM_OP_ADD_NET ? op->fd : -EBADF);
}

static const char *ch_owes(const struct vmm *v)
{
	const struct vmm_ch *ch = v->impl;

	if (ch->over)
		return ch->owed;
	return ch->probing ? NULL : ch_api_current(ch->api);
}

static int ch_save(const struct vmm *v, struct vmm_saved *ret)
{
	const struct vmm_ch *ch = v->impl;
	int fd = ch_api_socket(ch->api);

	if (ch->over || ch->quitting || ch->probing || ch->n_starting > 0 || fd < 0)
		return -EBUSY;
	*ret = (struct vmm_saved){ fd, ch->events_fd, ch->text, ch->len, ch->version };
	return 0;
}

static int ch_restore_consume(struct vmm *v, const struct vmm_saved *s)
{
	const struct vmm_channels c = { s->fd, s->events_fd, -EBADF, -EBADF };
	struct vmm_ch *ch;
	int r;

	if (s->pending_len >= sizeof ch->text) {
		vmm_channels_close(&c);
		return -EINVAL;
	}
	r = ch_open(v, &c);
	if (r < 0)
		return r;
	ch = v->impl;
	memcpy(ch->text, s->pending, s->pending_len);
	ch->len = s->pending_len;
	ch->version = s->version;
	return 0;
}

/* F is wanted, and this version has it not. */
static char *ch_lacks(uint32_t version, enum ch_feature f)
{
	return str_printf("%s: not supported by cloud-hypervisor %u, %u is needed",
		ch_version_feature_name(f), version, ch_version_of(f));
}

static bool ch_has_volumes(const struct vmm_config *c)
{
	for (size_t i = 0; i < c->n_disks; i++) {
		if (!c->disks[i].read_only)
			return true;
	}
	return false;
}

static char *ch_check(const struct vmm_config *c)
{
	CLEANUP_FREE char *vm = ch_config_vm(c);

	if (!str_eq(c->accel, "kvm"))
		return strdup("Cloud Hypervisor runs on KVM only, which does not work here (uvms "
			      "doctor)");
	if (ch_has_volumes(c) && !ch_version_has(c->version, CH_FEATURE_RANGE_LOCKS))
		return ch_lacks(c->version, CH_FEATURE_RANGE_LOCKS);
	if (c->vsock_device && !ch_version_has(c->version, CH_FEATURE_VSOCK_DEVICE))
		return ch_lacks(c->version, CH_FEATURE_VSOCK_DEVICE);
	if (vm && strlen(vm) >= 48 * 1024)
		return strdup("its description is longer than Cloud Hypervisor takes (48 KiB)");
	return NULL;
}

/* Before, a guest was paused with requests of its disks under way. */
static char *ch_check_snapshot(uint32_t version, size_t n_volumes)
{
	if (n_volumes == 0 || ch_version_has(version, CH_FEATURE_DRAIN))
		return NULL;
	return ch_lacks(version, CH_FEATURE_DRAIN);
}

static bool ch_can_restore_on_demand(uint32_t version)
{
	return ch_version_has(version, CH_FEATURE_ON_DEMAND);
}

static int ch_arguments(const struct vmm_config *c, char ***v)
{
	int r = 0;

	r |= strv_push(v, "--api-socket");
	r |= strv_pushf(v, "fd=%d", VMM_FD_CONTROL);
	r |= strv_push(v, "--event-monitor");
	r |= strv_pushf(v, "fd=%d", VMM_FD_EVENTS);
	r |= strv_push(v, "--seccomp");
	r |= strv_push(v, "true");
	if (ch_version_has(c->version, CH_FEATURE_NO_SHUTDOWN))
		r |= strv_push(v, "--no-shutdown");
	return r < 0 ? -ENOMEM : 0;
}

/* A network's TAP goes beside the call that brings the guest back. */
static char *ch_restore(const struct vmm_config *c)
{
	return ch_config_restore(c->restore, c->net_mac ? VMM_NET_ID : NULL, c->on_demand);
}

static int ch_push_call(char ***calls, const char *call, char *body_consume)
{
	CLEANUP_FREE char *body = body_consume;

	return body ? strv_pushf(calls, "%s %s", call, body) : -ENOMEM;
}

static int ch_calls_for(const struct vmm_config *c, char ***calls)
{
	int r = strv_push(calls, "GET vmm.ping");

	if (c->restore) {
		r = r ? r : ch_push_call(calls, "PUT vm.restore", ch_restore(c));
		return r ? r : strv_push(calls, "PUT vm.resume");
	}
	r = r ? r : ch_push_call(calls, "PUT vm.create", ch_config_vm(c));
	if (c->net_mac)
		r = r ? r : ch_push_call(calls, "PUT vm.add-net", ch_config_net(c->net_mac));
	return r ? r : strv_push(calls, "PUT vm.boot");
}

static uint32_t ch_version(const char *text, char **ret_reason)
{
	uint32_t n = ch_version_parse(text);

	if (n >= CH_VERSION_MIN)
		return n;
	*ret_reason =
		n ? str_printf("cloud-hypervisor is version %u: at least %d is needed, %d is best",
			    n, CH_VERSION_MIN, CH_VERSION_BEST)
		  : strdup("cloud-hypervisor does not tell its version");
	return 0;
}

const struct vmm_backend vmm_backend_ch = {
	.name = "ch",
	.caps = VMM_CAP_POWER_BUTTON | VMM_CAP_VSOCK_HYBRID | VMM_CAP_VSOCK_DEVICE |
		VMM_CAP_VSOCK_DIALS | VMM_CAP_KVM | VMM_CAP_API | VMM_CAP_CONSOLE_TTY |
		VMM_CAP_NET_TAP | VMM_CAP_LANDLOCK | VMM_CAP_PAUSE | VMM_CAP_MEMORY | VMM_CAP_CPUS |
		VMM_CAP_DISKS | VMM_CAP_NET_LIVE | VMM_CAP_SNAPSHOT | VMM_CAP_PMEM_LIVE |
		VMM_CAP_PMEM_REMOVED | VMM_CAP_FS_LIVE,
	.program = VMM_PROGRAM_CH,
	.program_env = VMM_PROGRAM_CH_ENV,
	.check = ch_check,
	.check_snapshot = ch_check_snapshot,
	.can_restore_on_demand = ch_can_restore_on_demand,
	.arguments = ch_arguments,
	.version = ch_version,
	.calls = ch_calls_for,
	.attach_consume = ch_attach_consume,
	.power_button = ch_power_button,
	.quit = ch_quit,
	.operate = ch_operate,
	.forget = ch_forget,
	.owes = ch_owes,
	.save = ch_save,
	.restore_consume = ch_restore_consume,
	.detach = ch_detach,
};
