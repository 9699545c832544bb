#include "sv-state.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "cleanup.h"
#include "control-server.h"
#include "str.h"
#include "sv-actions.h"
#include "sv-agent.h"
#include "sv-broker.h"
#include "sv-children.h"
#include "sv-console.h"
#include "sv-control.h"
#include "sv-dialed.h"
#include "sv-plan.h"
#include "sv-saved.h"
#include "sv-virtiofsd.h"
#include "sv-vmm.h"
#include "sv-vsockd.h"
#include "sv.h"

/* taking down */

/* NULL when LEN is 0, which is no failure. */
static int save_bytes(char **ret, const void *bytes, size_t len)
{
	if (len == 0)
		return 0;
	*ret = malloc(2 * len + 1);
	if (!*ret)
		return -ENOMEM;
	str_hex(*ret, bytes, len);
	return 0;
}

static int save_self(const struct sv *sv, struct sv_saved_self *f)
{
	f->version = SV_SAVED_VERSION;
	f->vm_fd = sv->vm_fd;
	f->runtime_fd = sv->runtime.fd;
	f->lock_fd = sv->runtime.lock_fd;
	f->dir_fd = sv->dir_fd;
	f->vsock_fd = sv->vsock_fd;
	f->net_fd = sv->net_fd;
	f->life_fd = sv->life_fd;
	f->broker_fd = sv->broker.channel_fd;
	f->deadline_usec = sv_actions_deadline(sv);
	f->stop_timeout_usec = sv->stop_timeout_usec;
	f->steps_done = (uint32_t)sv->steps_done;
	f->net_restarts = sv->net_restarts;
	f->link_slot = sv->link.attached ? sv->link.slot + 1 : 0;
	f->link_gone = sv->link.gone;
	f->owned = sv->owned;
	f->starter_waits = sv->starter_waits;
	if (str_set(&f->state_dir, sv->dirs.state) < 0 ||
		str_set(&f->runtime_dir, sv->dirs.runtime) < 0 ||
		str_set(&f->config_dir, sv->dirs.config) < 0)
		return -ENOMEM;
	if (str_set(&f->uvms, sv_version()) < 0 ||
		str_set(&f->state, sv_fsm_state_name(sv->state)) < 0)
		return -ENOMEM;
	return save_bytes(&f->secret, sv->secret, sizeof sv->secret);
}

static void save_child(const struct sv_child *c, struct sv_saved_child *s)
{
	*s = (struct sv_saved_child){ .pid = (uint32_t)c->pid,
		.pidfd = c->pidfd,
		.output_fd = c->output_fd,
		.end_code = (uint32_t)c->end.si_code,
		.end_status = (uint32_t)c->end.si_status,
		.dropped_bytes = c->log.dropped_bytes + c->log.n_held,
		.gap_bytes = c->log.gap_bytes + c->log.n_held,
		.has_ended = c->has_ended };
}

static void save_vsockd(const struct sv_vsockd *v, struct sv_saved *s)
{
	s->vsockd = (struct sv_saved_vsockd){ v->device_fd, v->dialed_fd, v->listen_fd, v->table_fd,
		v->state_fd, v->keeper_fd, v->cookie, v->served, v->started_usec };
	for (uint32_t i = 0; i < KEEPER_SLOTS; i++) {
		if (v->slots[i] >= 0)
			s->slots[s->n_slots++] = (struct sv_saved_slot){ i, v->slots[i] };
	}
}

static int save_plan(const struct vm_plan *p, struct sv_saved *s)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < p->n_steps; i++) {
		struct sv_saved_step *step = &s->steps[s->n_steps++];

		r = str_set(&step->step, vm_step_name(p->steps[i].id));
		for (char **a = p->steps[i].args; r >= 0 && a && *a; a++)
			r = strv_push(&step->args, *a);
	}
	return r;
}

static int save_vmm(const struct sv *sv, struct sv_saved_vmm *s)
{
	struct vmm_saved v;
	int r = vmm_save(sv->vmm, &v);

	if (r < 0)
		return r;
	s->fd = v.fd;
	s->events_fd = v.events_fd;
	s->version = v.version;
	return save_bytes(&s->pending, v.pending, v.pending_len);
}

static void save_console(const struct sv_console *c, struct sv_saved *s)
{
	struct sv_console_saved v;

	sv_console_save(c, &v);
	s->console = (struct sv_saved_console){ v.fd, v.dropped_bytes, v.gap_bytes };
	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++) {
		if (v.clients[i] >= 0)
			s->clients[s->n_clients++] = (struct sv_saved_client){ v.clients[i] };
	}
}

static int save_agent(const struct sv_agent *a, struct sv_saved *s)
{
	CLEANUP_FREE struct sv_agent_saved *v = calloc(1, sizeof *v);
	int r = v ? sv_agent_save(a, v) : -ENOMEM;

	if (r < 0)
		return r;
	s->agent = (struct sv_saved_agent){ v->fd, v->ready, v->n_lines };
	for (size_t i = 0; r >= 0 && i < v->n_homes; i++) {
		const struct sv_agent_home_saved *h = &v->homes[i];
		struct sv_saved_home *to = &s->homes[s->n_homes++];

		*to = (struct sv_saved_home){ .fd = h->fd,
			.proven = h->proven,
			.control = h->control,
			.version = h->version,
			.timeout_usec = h->timeout_usec };
		r = save_bytes(&to->pending, h->pending, h->pending_len);
	}
	return r;
}

static int save_connection(const struct control_saved *c, struct sv_saved_connection *to)
{
	int r;

	*to = (struct sv_saved_connection){ .fd = c->fd,
		.out_fd = c->out_fd,
		.may_write = c->may_write,
		.owner = c->owner,
		.busy = c->busy,
		.oneway = c->oneway };
	r = save_bytes(&to->in, c->in, c->in_len);
	return r < 0 ? r : save_bytes(&to->out, c->out, c->out_len);
}

static int find_call(const struct control_saved *all, size_t n, const struct control_call *call)
{
	for (size_t i = 0; i < n; i++) {
		if (all[i].call == call)
			return (int)i;
	}
	return -EBUSY;
}

static int save_waiters(
	const struct sv *sv, const struct control_saved *all, size_t n, struct sv_saved *s)
{
	const struct control_call *call;
	const char *what;

	for (size_t i = 0; sv_control_waiter(sv, i, &call, &what); i++) {
		int at = i < SV_SAVED_CONNECTIONS ? find_call(all, n, call) : -E2BIG;

		if (at < 0)
			return at;
		s->waiters[s->n_waiters].connection = (uint32_t)at;
		if (str_set(&s->waiters[s->n_waiters++].what, what) < 0)
			return -ENOMEM;
	}
	return 0;
}

static int save_control(const struct sv *sv, const struct control_call *caller, struct sv_saved *s)
{
	struct control_saved all[SV_SAVED_CONNECTIONS];
	int n = control_server_save(sv->control, &s->control.fd, all, ARRAY_SIZE(all));
	int r = n < 0 ? n : find_call(all, (size_t)n, caller);
	size_t n_busy = 0;

	if (r < 0)
		return r;
	s->self.caller = (uint32_t)r;
	for (int i = 0; r >= 0 && i < n; i++) {
		n_busy += all[i].busy;
		r = save_connection(&all[i], &s->connections[s->n_connections++]);
	}
	if (r >= 0)
		r = save_waiters(sv, all, (size_t)n, s);
	/* whoever has asked for something is known to wait for it */
	return r < 0 ? r : n_busy == s->n_waiters + 1 ? 0 : -EBUSY;
}

static int save_disks(const struct sv *sv, struct sv_saved *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->disks); i++) {
		struct sv_saved_disk *d = &s->disks[s->n_disks];

		if (sv->disks[i].fd < 0)
			continue;
		*d = (struct sv_saved_disk){ strdup(sv->disks[i].name), sv->disks[i].fd,
			sv->disks[i].slot, sv->disks[i].gone };
		s->n_disks++;
		if (!d->name)
			return -ENOMEM;
	}
	return 0;
}

/* Those that can be in a refresh: not in the middle of a change. */
static int save_shares(const struct sv *sv, struct sv_saved *s)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < ARRAY_SIZE(sv->shares); i++) {
		const struct sv_share *from = &sv->shares[i];
		struct sv_saved_share *to = &s->shares[s->n_shares];

		if (from->kind == SV_SHARE_NONE)
			continue;
		s->n_shares++;
		*to = (struct sv_saved_share){ .place = (uint32_t)i,
			.kind = from->kind,
			.fd = from->fd,
			.listen_fd = from->listen_fd,
			.bytes = from->bytes,
			.slot = from->slot,
			.restarts = from->restarts,
			.gone = from->gone,
			.lost = from->lost };
		r = str_set(&to->path, from->path);
		r = r < 0 ? r : str_set(&to->source, from->source);
		r = r < 0 ? r : str_set(&to->digest, from->digest);
		r = r < 0 ? r : str_set(&to->program, from->program);
		r = r < 0 ? r : str_set(&to->fault, from->fault);
		r = r < 0 ? r : str_set(&to->which, vm_virtiofsd_name(from->which));
	}
	return r;
}

static const struct sv_child *nth_child(const struct sv *sv, size_t i)
{
	const struct sv_child *children[] = { &sv->vmm_child, &sv->vsockd.child,
		&sv->namespace_child, &sv->net_child, &sv->tap.child, &sv->broker.child };

	static_assert(ARRAY_SIZE(children) == SV_SAVED_SHARE, "each has its place");
	static_assert(SV_SHARES_MAX == SV_SAVED_CHILDREN - SV_SAVED_SHARE, "so have they");
	return i < SV_SAVED_SHARE ? children[i] : &sv->shares[i - SV_SAVED_SHARE].child;
}

static int save_parts(const struct sv *sv, const struct control_call *caller, struct sv_saved *s,
	const char **ret_why)
{
	int r;

	for (; s->n_children < SV_SAVED_CHILDREN; s->n_children++)
		save_child(nth_child(sv, s->n_children), &s->children[s->n_children]);
	save_vsockd(&sv->vsockd, s);
	save_console(sv->console, s);
	s->tap = (struct sv_saved_tap){ sv->tap.link_fd, sv->tap.stream_fd, sv->tap.restarts };
	*ret_why = "something else is under way";
	r = save_disks(sv, s);
	if (r >= 0)
		r = save_shares(sv, s);
	if (r < 0)
		return r;
	r = save_self(sv, &s->self);
	if (r >= 0)
		r = save_plan(&sv->plan, s);
	if (r >= 0)
		r = save_control(sv, caller, s);
	if (r < 0)
		return r;
	*ret_why = "a session is being opened";
	r = save_agent(sv->agent, s);
	if (r < 0)
		return r;
	*ret_why = "the VMM is being asked something";
	return save_vmm(sv, &s->vmm);
}

int sv_state_save(const struct sv *sv, const struct control_call *caller, struct sv_saved **ret,
	const char **ret_why)
{
	struct sv_saved *s = sv_saved_new();
	int r;

	if (!s)
		return -ENOMEM;
	r = save_parts(sv, caller, s, ret_why);
	if (r < 0) {
		sv_saved_free(s);
		return r;
	}
	s->spec = sv->spec; /* borrowed until sv_state_free() */
	s->status = sv->status;
	*ret = s;
	return 0;
}

void sv_state_free(struct sv_saved *s)
{
	if (!s)
		return;
	s->spec = (struct vm_spec){ 0 };
	s->status = (struct vm_status){ 0 };
	sv_saved_free(s);
}

/* setting up */

/* What HEX says, on the heap; NULL is nothing. */
static int load_bytes(const char *hex, void **ret, size_t *ret_len)
{
	size_t len = hex ? strlen(hex) / 2 : 0;
	void *bytes = malloc(len + 1);
	int r;

	if (!bytes)
		return -ENOMEM;
	r = hex ? str_unhex(bytes, hex, len) : 0;
	if (r < 0) {
		free(bytes);
		return r;
	}
	*ret = bytes;
	*ret_len = len;
	return 0;
}

static int load_state(const char *name, enum sv_state *ret)
{
	for (enum sv_state s = 0; s < SV_STATES; s++) {
		if (str_eq(sv_fsm_state_name(s), name)) {
			*ret = s;
			return s == SV_BOOTING || sv_fsm_is_up(s) ? 0 : -EINVAL;
		}
	}
	return -EINVAL;
}

static int load_self(struct sv *sv, struct sv_saved *s)
{
	struct sv_saved_self *f = &s->self;

	sv->spec = s->spec;
	s->spec = (struct vm_spec){ 0 };
	vm_status_finish(&sv->status);
	sv->status = s->status;
	s->status = (struct vm_status){ 0 };
	sv->dirs = (struct vm_dirs){ TAKE_PTR(f->state_dir), TAKE_PTR(f->runtime_dir),
		TAKE_PTR(f->config_dir), -EBADF, -EBADF };
	sv->vm_fd = f->vm_fd;
	sv->runtime.fd = f->runtime_fd;
	sv->runtime.lock_fd = f->lock_fd;
	sv->dir_fd = f->dir_fd;
	sv->net_fd = f->net_fd;
	sv->vsock_fd = f->vsock_fd;
	sv->life_fd = f->life_fd;
	sv->stop_timeout_usec = f->stop_timeout_usec;
	sv->steps_done = f->steps_done;
	sv->net_restarts = f->net_restarts;
	sv->link.attached = f->link_slot > 0;
	sv->link.slot = f->link_slot ? f->link_slot - 1 : 0;
	sv->link.gone = f->link_gone;
	sv->owned = f->owned;
	sv->starter_waits = f->starter_waits;
	sv->backend = vmm_backend_find(sv->status.backend);
	if (!sv->backend || load_state(f->state, &sv->state) < 0)
		return -EINVAL;
	return str_unhex(sv->secret, f->secret, sizeof sv->secret);
}

static int load_plan(struct sv *sv, struct sv_saved *s)
{
	for (size_t i = 0; i < s->n_steps; i++) {
		enum vm_step_id id = 0;
		int r;

		while (id < VM_STEP_MAX && !str_eq(vm_step_name(id), s->steps[i].step))
			id++;
		if (id == VM_STEP_MAX)
			return -EINVAL;
		r = vm_plan_add_consume(&sv->plan, id, TAKE_PTR(s->steps[i].args));
		if (r < 0)
			return r;
	}
	/* when there is none the present one stays, and the former program is as good as any */
	(void)sv_plan_renew_vsockd(sv);
	return 0;
}

static int load_child(struct sv_child *c, const struct sv_saved_child *s)
{
	int r;

	c->pid = (pid_t)s->pid;
	c->pidfd = s->pidfd;
	c->output_fd = s->output_fd;
	c->end.si_code = (int)s->end_code;
	c->end.si_status = (int)s->end_status;
	c->has_ended = s->has_ended;
	r = sv_child_resume(c);
	c->log.dropped_bytes = s->dropped_bytes;
	c->log.gap_bytes = s->gap_bytes;
	return r;
}

static int load_vsockd(struct sv *sv, const struct sv_saved *s)
{
	struct sv_vsockd *v = &sv->vsockd;
	int r;

	v->device_fd = s->vsockd.device_fd;
	v->dialed_fd = s->vsockd.dialed_fd;
	v->listen_fd = s->vsockd.listen_fd;
	v->table_fd = s->vsockd.table_fd;
	v->state_fd = s->vsockd.state_fd;
	v->keeper_fd = s->vsockd.keeper_fd;
	v->cookie = s->vsockd.cookie;
	v->served = s->vsockd.served;
	v->started_usec = s->vsockd.started_usec;
	for (size_t i = 0; i < s->n_slots; i++)
		v->slots[s->slots[i].slot] = s->slots[i].fd;
	r = sv_vsockd_resume(sv);
	return r < 0 ? r : sv_dialed_begin(sv);
}

static int load_vmm(struct sv *sv, const struct sv_saved_vmm *s)
{
	CLEANUP_FREE void *pending = NULL;
	struct vmm_saved v = { .fd = s->fd, .events_fd = s->events_fd, .version = s->version };
	int r = load_bytes(s->pending, &pending, &v.pending_len);

	v.pending = pending;
	return r < 0 ? r : sv_vmm_resume(sv, &v);
}

static int load_console(struct sv *sv, const struct sv_saved *s)
{
	struct sv_console_saved v = { .fd = s->console.fd,
		.dropped_bytes = s->console.dropped_bytes,
		.gap_bytes = s->console.gap_bytes };

	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++)
		v.clients[i] = i < s->n_clients ? s->clients[i].fd : -EBADF;
	return sv_console_resume_consume(sv, &v, &sv->console);
}

static int load_homes(const struct sv_saved *s, struct sv_agent_saved *v)
{
	int r = 0;

	for (; r >= 0 && v->n_homes < s->n_homes; v->n_homes++) {
		const struct sv_saved_home *h = &s->homes[v->n_homes];
		struct sv_agent_home_saved *to = &v->homes[v->n_homes];
		void *pending = NULL;

		*to = (struct sv_agent_home_saved){ .fd = h->fd,
			.proven = h->proven,
			.control = h->control,
			.version = h->version,
			.timeout_usec = h->timeout_usec };
		r = load_bytes(h->pending, &pending, &to->pending_len);
		to->pending = pending;
	}
	return r;
}

static int load_agent(struct sv *sv, const struct sv_saved *s)
{
	CLEANUP_FREE struct sv_agent_saved *v = calloc(1, sizeof *v);
	int r;

	if (!v)
		return -ENOMEM;
	v->fd = s->agent.fd;
	v->ready = s->agent.ready;
	v->n_lines = s->agent.n_lines;
	r = load_homes(s, v);
	if (r >= 0)
		r = sv_agent_resume(sv, v, &sv->agent);
	for (size_t i = 0; i < v->n_homes; i++)
		free((void *)v->homes[i].pending);
	return r;
}

static int load_connection(
	struct sv *sv, const struct sv_saved_connection *c, struct control_call **ret)
{
	CLEANUP_FREE void *in = NULL, *out = NULL;
	struct control_saved v = { .fd = c->fd,
		.out_fd = c->out_fd,
		.may_write = c->may_write,
		.owner = c->owner,
		.busy = c->busy,
		.oneway = c->oneway };
	int r;

	r = load_bytes(c->in, &in, &v.in_len);
	if (r >= 0)
		r = load_bytes(c->out, &out, &v.out_len);
	v.in = in;
	v.out = out;
	if (r >= 0)
		r = control_server_restore_consume(sv->control, &v);
	*ret = v.call;
	return r;
}

static int load_control(struct sv *sv, const struct sv_saved *s, struct control_call **ret_caller)
{
	struct control_call *calls[SV_SAVED_CONNECTIONS];
	int r = control_server_listen_consume(sv->control, s->control.fd);

	for (size_t i = 0; r >= 0 && i < s->n_connections; i++)
		r = load_connection(sv, &s->connections[i], &calls[i]);
	/* from the end, since each is put in front */
	for (size_t i = s->n_waiters; r >= 0 && i > 0; i--)
		r = sv_control_wait_again(
			sv, calls[s->waiters[i - 1].connection], s->waiters[i - 1].what);
	if (r >= 0)
		*ret_caller = calls[s->self.caller];
	return r;
}

static int load_children(struct sv *sv, const struct sv_saved *s)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < SV_SAVED_CHILDREN; i++)
		r = load_child((struct sv_child *)nth_child(sv, i), &s->children[i]);
	return r;
}

static void load_disks(struct sv *sv, const struct sv_saved *s)
{
	for (size_t i = 0; i < s->n_disks; i++) {
		struct sv_disk *d = &sv->disks[s->disks[i].slot];

		*d = (struct sv_disk){
			.fd = s->disks[i].fd, .slot = s->disks[i].slot, .gone = s->disks[i].gone
		};
		snprintf(d->name, sizeof d->name, "%s", str_or(s->disks[i].name, ""));
	}
}

static void load_shares(struct sv *sv, struct sv_saved *s)
{
	for (size_t i = 0; i < s->n_shares; i++) {
		struct sv_saved_share *from = &s->shares[i];
		struct sv_share *to = &sv->shares[from->place];

		to->kind = (enum sv_share_kind)from->kind;
		to->path = TAKE_PTR(from->path);
		to->source = TAKE_PTR(from->source);
		to->digest = TAKE_PTR(from->digest);
		to->program = TAKE_PTR(from->program);
		to->fault = TAKE_PTR(from->fault);
		to->which = vm_virtiofsd_named(from->which);
		to->fd = from->fd;
		to->listen_fd = from->listen_fd;
		to->bytes = from->bytes;
		to->slot = from->slot;
		to->restarts = from->restarts;
		to->gone = from->gone;
		to->lost = from->lost;
		if (to->lost)
			sv_virtiofsd_hang_up(sv, to);
	}
}

int sv_state_load(struct sv *sv, struct sv_saved *s, struct control_call **ret_caller)
{
	int r = sv_saved_set_cloexec(s, true);

	if (r >= 0)
		r = load_self(sv, s);
	if (r >= 0)
		r = load_plan(sv, s);
	if (r >= 0)
		r = load_children(sv, s);
	if (r >= 0)
		r = load_vsockd(sv, s);
	load_disks(sv, s);
	load_shares(sv, s);
	sv->tap.link_fd = s->tap.link_fd;
	sv->tap.stream_fd = s->tap.stream_fd;
	sv->tap.restarts = s->tap.restarts;
	sv->broker.channel_fd = s->self.broker_fd;
	if (r >= 0)
		r = sv_broker_resume(sv);
	if (r >= 0)
		r = load_console(sv, s);
	if (r >= 0)
		r = load_agent(sv, s);
	if (r >= 0)
		r = load_vmm(sv, &s->vmm);
	if (r >= 0)
		r = load_control(sv, s, ret_caller);
	return r < 0 ? r : sv_actions_resume(sv, s->self.deadline_usec);
}
