#include "sv-change.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "str.h"
#include "sv.h"

/* The state that each needs, and what it is to the table (SV_HAPPENINGS: nothing). */
static const struct {
	enum sv_state from;
	enum sv_happening done;
	const char *wrong_state;
} changes[] = {
	[VMM_OP_PAUSE] = { SV_RUNNING, SV_GUEST_PAUSED, "it does not run" },
	[VMM_OP_RESUME] = { SV_PAUSED, SV_GUEST_RESUMED, "it is not paused" },
	[VMM_OP_MEMORY] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_CPUS] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_ADD_DISK] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_ADD_NET] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_ADD_PMEM] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_ADD_FS] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_REMOVE] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_SNAPSHOT] = { SV_PAUSED, SV_HAPPENINGS, "it is not paused" },
	[VMM_OP_VSOCK_OUT] = { SV_RUNNING, SV_HAPPENINGS, "it does not run" },
	[VMM_OP_VSOCK_IN] = { SV_PAUSED, SV_HAPPENINGS, "it is not paused" },
};
static_assert(ARRAY_SIZE(changes) == VMM_OPS, "every change has a state");

static void note_done(struct sv *sv, const struct vmm_op *op)
{
	if (op->kind == VMM_OP_MEMORY)
		sv->status.memory_bytes = op->bytes;
	if (op->kind == VMM_OP_CPUS)
		sv->status.cpus = op->cpus;
	if (changes[op->kind].done != SV_HAPPENINGS)
		sv_happen(sv, changes[op->kind].done, NULL);
}

static void change_ended(struct sv *sv, int error, const char *reason)
{
	void (*ended)(struct sv *, int, const char *) = sv->change.ended;

	/* it may begin the next one */
	sv->change.ended = NULL;
	if (ended)
		ended(sv, error, reason);
}

static void on_done(struct vmm *vmm, int error, const char *reason, void *userdata)
{
	struct sv *sv = userdata;
	struct control_call *call = TAKE_PTR(sv->change.call);
	struct vmm_op op = sv->change.op;

	sv->change.busy = false;
	if (error == 0)
		note_done(sv, &op);
	change_ended(sv, error, reason);
	sv_status_save(sv);
	if (!call)
		return;
	if (error == 0)
		control_call_reply(call, NULL, -EBADF);
	else
		control_call_error(call, error,
			control_error_words(
				"the VMM refused", str_or(reason, strerror(-error)), NULL));
}

/* The back-end is told what the VM was started with. */
static int begin(struct sv *sv, struct control_call *call, const struct vmm_op *asked,
	void (*ended)(struct sv *sv, int error, const char *reason))
{
	struct sv_change *c = &sv->change;
	int r;

	if (c->busy)
		return -EBUSY;
	sv_share_wake(sv); /* stopped, it would hold up the VMM */
	c->op = *asked;
	c->op.boot_bytes = sv->spec.memory_bytes;
	r = vmm_operate(sv->vmm, &c->op, on_done, sv);
	c->op.id = c->op.path = c->op.serial = c->op.tag = c->op.mac = NULL; /* the caller's */
	if (r < 0)
		return r;
	c->call = call;
	c->ended = ended;
	c->busy = true;
	return 0;
}

static char *size_fault(const struct sv *sv, const struct vmm_op *op)
{
	const struct vm_spec *s = &sv->spec;

	if (op->kind == VMM_OP_CPUS && op->cpus < s->cpus)
		return str_printf("%u CPUs: it was started with --cpus=%u", op->cpus, s->cpus);
	if (op->kind == VMM_OP_CPUS && op->cpus > s->cpus_max)
		return str_printf("%u CPUs: it was started with --max-cpus=%u", op->cpus,
			s->cpus_max ? s->cpus_max : s->cpus);
	if (op->kind != VMM_OP_MEMORY)
		return NULL;
	if (!s->memory_max_bytes)
		return strdup("its memory cannot change: it was started without --max-memory");
	if (op->bytes < s->memory_bytes || op->bytes > s->memory_max_bytes)
		return str_printf("its memory can be %lluM to %lluM",
			(unsigned long long)(s->memory_bytes >> 20),
			(unsigned long long)(s->memory_max_bytes >> 20));
	return op->bytes % (2 << 20) ? strdup("memory must be a multiple of 2M") : NULL;
}

bool sv_change_is_under_way(const struct sv *sv)
{
	return sv->refresh.call || sv->refresh.done || sv->change.busy || sv->link.call ||
	       sv_share_is_under_way(sv) || sv_snapshot_is_under_way(sv);
}

/* 0, or why OP is refused before anything is touched; *RET_WHAT on the heap. */
static int look_at(const struct sv *sv, const struct vmm_op *op, char **ret_what)
{
	if (sv->state != changes[op->kind].from) {
		*ret_what = strdup(changes[op->kind].wrong_state);
		return -EBUSY;
	}
	*ret_what = size_fault(sv, op);
	if (*ret_what)
		return -EINVAL;
	/* QEMU 7.2 dies of the next one that comes */
	if (op->kind == VMM_OP_CPUS && op->cpus < sv->status.cpus &&
		str_eq(sv->status.accel, "tcg")) {
		*ret_what = strdup("taking CPUs away: not supported by emulation");
		return -EOPNOTSUPP;
	}
	if (sv_change_is_under_way(sv)) {
		*ret_what = strdup("another change is under way: try again");
		return -EBUSY;
	}
	return 0;
}

void sv_change_ask(struct sv *sv, struct control_call *call, const struct vmm_op *op,
	void (*ended)(struct sv *sv, int error, const char *reason))
{
	CLEANUP_FREE char *what = NULL;
	int r = look_at(sv, op, &what);

	if (r == 0)
		r = begin(sv, call, op, ended);
	if (r == -EOPNOTSUPP && !what)
		what = str_printf("not supported by back-end %s", vmm_backend_name(sv->backend));
	if (r < 0 && ended)
		ended(sv, r, what);
	if (r < 0)
		control_call_error(
			call, r, control_error_words(what ? what : strerror(-r), NULL, NULL));
}

int sv_change_do(struct sv *sv, const struct vmm_op *op,
	void (*ended)(struct sv *sv, int error, const char *reason))
{
	return begin(sv, NULL, op, ended);
}

void sv_change_forget(struct sv *sv, struct control_call *call)
{
	if (sv->change.call == call)
		sv->change.call = NULL;
}

int sv_change_wake(struct sv *sv)
{
	return begin(sv, NULL, &(struct vmm_op){ .kind = VMM_OP_RESUME }, NULL);
}

void sv_change_finish(struct sv *sv)
{
	struct control_call *call = TAKE_PTR(sv->change.call);

	if (call)
		control_call_error(
			call, -ESHUTDOWN, control_error_words("the VM ended", NULL, NULL));
}
