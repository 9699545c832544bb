#include "sv-change.h"

#include <errno.h>
#include <string.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "str.h"
#include "sv.h"

/* Each as people know it, the state that it needs, and what it is to the table. */
static const struct {
	const char *name;
	enum sv_state from;
	enum sv_happening done;
	const char *wrong_state;
} changes[VMM_OPS] = {
	[VMM_OP_PAUSE] = { "pause", SV_RUNNING, SV_GUEST_PAUSED, "it does not run" },
	[VMM_OP_RESUME] = { "resume", SV_PAUSED, SV_GUEST_RESUMED, "it is not paused" },
};

static void change_refuse(struct control_call *call, int error, const char *what, const char *next)
{
	control_call_error(call, error, control_error_words(what, NULL, next));
}

static void on_done(struct vmm *vmm, int error, const char *reason, void *userdata)
{
	struct sv *sv = userdata;
	struct control_call *call = TAKE_PTR(sv->change.call);
	enum vmm_op_kind kind = sv->change.kind;

	if (error == 0)
		sv_happen(sv, changes[kind].done, NULL);
	if (!call)
		return;
	if (error == 0)
		control_call_reply(call, NULL, -EBADF);
	else
		control_call_error(call, error,
			control_error_words(
				"the VMM refused", str_or(reason, strerror(-error)), NULL));
}

static int begin(struct sv *sv, struct control_call *call, const struct vmm_op *op)
{
	int r;

	sv->change.kind = op->kind;
	sv->change.call = call;
	r = vmm_operate(sv->vmm, op, on_done, sv);
	if (r < 0)
		sv->change.call = NULL;
	return r;
}

void sv_change_ask(struct sv *sv, struct control_call *call, const struct vmm_op *op)
{
	int r;

	if (sv->state != changes[op->kind].from) {
		change_refuse(call, -EBUSY, changes[op->kind].wrong_state, NULL);
		return;
	}
	if (sv->refresh.call || sv->refresh.done) {
		change_refuse(call, -EBUSY, "it is being refreshed", "try again");
		return;
	}
	r = begin(sv, call, op);
	if (r == -EOPNOTSUPP)
		change_refuse(call, r, "not supported by this back-end", NULL);
	else if (r == -EBUSY)
		change_refuse(call, r, "another change is under way", "try again");
	else if (r < 0)
		change_refuse(call, r, strerror(-r), NULL);
}

void sv_change_forget(struct sv *sv, struct control_call *call)
{
	if (sv->change.call == call)
		sv->change.call = NULL;
}

int sv_change_wake(struct sv *sv)
{
	return begin(sv, NULL, &(struct vmm_op){ .kind = VMM_OP_RESUME });
}

void sv_change_finish(struct sv *sv)
{
	struct control_call *call = TAKE_PTR(sv->change.call);

	if (call)
		change_refuse(call, -ESHUTDOWN, "the VM ended", NULL);
}
