#include "sv-link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "str.h"
#include "sv-agent.h"
#include "sv-attach.h"
#include "sv-change.h"
#include "sv-children.h"
#include "sv-net.h"
#include "sv.h"

#define LINK_USEC (UINT64_C(1000) * (AGENT_WIRE_LINK_MS + 2000)) /* for the guest's word */

static void refuse(struct control_call *call, int error, const char *what, const char *next)
{
	control_call_error(
		call, error, control_error_words(what ? what : strerror(-error), NULL, next));
}

/* WHAT (may be NULL) and its CAUSE (likewise), with an ERROR. */
static void link_answer(struct sv *sv, int error, const char *what, const char *cause)
{
	struct control_call *call = TAKE_PTR(sv->link.call);

	sv->link.timer = sd_event_source_disable_unref(sv->link.timer);
	if (!call)
		return;
	if (error == 0)
		control_call_reply(call, NULL, -EBADF);
	else
		control_call_error(call, error,
			control_error_words(what ? what : "the VMM refused", cause,
				sv->link.attached ? "uvms detach --net takes it away again"
						  : NULL));
}

static void link_not_set_up(struct sv *sv, int error, const char *cause)
{
	link_answer(sv, error, "the guest has the interface, and did not set it up", cause);
}

/* Everything of it on this side; the device is gone, or never came. */
static void link_undo(struct sv *sv)
{
	sv_net_stop(sv);
	sv->vmm_fds[VMM_FD_NET] = fd_close(sv->vmm_fds[VMM_FD_NET]);
	vm_plan_drop_last(&sv->plan);
	sv->steps_done--;
	free(TAKE_PTR(sv->spec.net));
	strv_free(TAKE_PTR(sv->spec.publish));
	free(TAKE_PTR(sv->status.network));
	sv->net_restarts = sv->tap.restarts = 0;
	sv->link.attached = sv->link.gone = false;
}

static void link_answer_lost(struct sv *sv)
{
	struct sv_child *ended = sv_net_ended(sv);
	CLEANUP_FREE char *said = sv_logfile_tail(&ended->log, 300);
	char text[128];

	sv_child_describe(ended, text, sizeof text);
	link_answer(
		sv, -EIO, "the network ended as soon as it had begun", said && *said ? said : text);
}

static int link_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	link_not_set_up(userdata, -ETIMEDOUT, "its agent does not answer");
	return 0;
}

static void link_ask_guest(struct sv *sv)
{
	int r;

	r = sd_event_add_time_relative(
		sv->event, &sv->link.timer, CLOCK_MONOTONIC, LINK_USEC, 0, link_on_timer, sv);
	if (r >= 0)
		r = sv_agent_link(sv->agent);
	if (r < 0)
		link_not_set_up(sv, r, strerror(-r));
}

static void attach_ended(struct sv *sv, int error, const char *reason)
{
	/* the VMM has its own */
	sv->vmm_fds[VMM_FD_NET] = fd_close(sv->vmm_fds[VMM_FD_NET]);
	sv->tap.fd = fd_close(sv->tap.fd);
	sv->link.attached = error == 0;
	if (error < 0)
		link_undo(sv);
	/* before it is told: who is told looks there */
	sv_status_save(sv);
	if (error < 0)
		link_answer(sv, error, NULL, str_or(reason, strerror(-error)));
	else if (sv_net_ended(sv))
		link_answer_lost(sv);
	else
		link_ask_guest(sv);
}

static void detach_ended(struct sv *sv, int error, const char *reason)
{
	if (error == 0)
		link_undo(sv);
	sv_status_save(sv);
	link_answer(sv, error, NULL, str_or(reason, strerror(-error)));
}

/* CALL is answered when OP has ended. */
static void link_operate(struct sv *sv, struct control_call *call, const struct vmm_op *op,
	void (*ended)(struct sv *sv, int error, const char *reason))
{
	int r;

	sv->link.timer = sd_event_source_disable_unref(sv->link.timer);
	sv->link.call = call;
	r = sv_change_do(sv, op, ended);
	if (r < 0)
		ended(sv, r, NULL);
}

/* Where the host's side ends, for the VMM. */
static int link_fd(const struct sv *sv)
{
	return vmm_backend_caps(sv->backend) & VMM_CAP_NET_TAP ? sv->tap.fd
							       : sv->vmm_fds[VMM_FD_NET];
}

/* Plans it and begins, as a start does. -errno: nothing is left of it. */
static int link_begin(struct sv *sv, char **publish, char **ret_reason, char **ret_next)
{
	int r;

	sv->spec.net = strdup("user");
	sv->spec.publish = publish;
	r = sv->spec.net ? vm_spec_check(&sv->spec, ret_reason) : -ENOMEM;
	r = r < 0 ? r : sv_net_plan(sv, ret_reason, ret_next);
	if (r < 0) {
		free(TAKE_PTR(sv->spec.net));
		strv_free(TAKE_PTR(sv->spec.publish));
		return r;
	}
	sv->steps_done++;
	r = sv_net_start(sv, vm_plan_find(&sv->plan, VM_STEP_NETWORK), ret_reason);
	if (r < 0)
		link_undo(sv);
	return r;
}

static void link_attach(struct sv *sv, struct control_call *call, char **publish, uint32_t slot)
{
	CLEANUP_FREE char *reason = NULL, *next = NULL;
	char mac[18];
	int r = link_begin(sv, publish, &reason, &next);

	if (r < 0) {
		refuse(call, r, reason, next);
		return;
	}
	sv_net_mac(sv->spec.name, mac);
	sv->link.slot = slot;
	link_operate(sv, call,
		&(struct vmm_op){ .kind = VMM_OP_ADD_NET,
			.id = VMM_NET_ID,
			.mac = mac,
			.fd = link_fd(sv),
			.slot = slot },
		attach_ended);
}

void sv_link_attach_consume(struct sv *sv, struct control_call *call, char **publish)
{
	CLEANUP(strv_freep) char **ports = publish;
	int slot = sv_attach_slot(sv), can = sv_agent_can(sv->agent, AGENT_WIRE_VERSION_NETWORK);

	if (!(vmm_backend_caps(sv->backend) & VMM_CAP_NET_LIVE))
		refuse(call, -EOPNOTSUPP,
			"a network for a VM that runs: not supported by this back-end", NULL);
	else if (sv_change_is_under_way(sv))
		refuse(call, -EBUSY, "another change is under way: try again", NULL);
	else if (sv->state != SV_RUNNING)
		refuse(call, -EBUSY, "it does not run", NULL);
	else if (vm_spec_has_network(&sv->spec))
		refuse(call, -EBUSY, "it has a network already", NULL);
	else if (slot < 0)
		refuse(call, -EOPNOTSUPP, "it has no free slot for another device",
			"--hotplug-slots of uvms run makes some");
	else if (can == -ENOTCONN)
		refuse(call, can, "the agent in the guest cannot be reached", "try again");
	else if (can < 0)
		refuse(call, can, "the agent in the guest is of an older uvms",
			"uvms restart starts it with this one");
	else
		link_attach(sv, call, TAKE_PTR(ports), (uint32_t)slot);
}

/* The guest has no device of it any more. */
static void link_release(struct sv *sv, struct control_call *call)
{
	link_undo(sv);
	sv_status_save(sv);
	control_call_reply(call, NULL, -EBADF);
}

void sv_link_detach(struct sv *sv, struct control_call *call)
{
	if (!sv->link.attached)
		refuse(call, -ENOENT,
			vm_spec_has_network(&sv->spec)
				? "its network is there from its start, and stays"
				: "no network is attached",
			NULL);
	else if (sv_change_is_under_way(sv))
		refuse(call, -EBUSY, "another change is under way: try again", NULL);
	else if (sv->state != SV_RUNNING)
		refuse(call, -EBUSY, "it does not run", NULL);
	else if (sv->link.gone)
		link_release(sv, call);
	else
		link_operate(sv, call,
			&(struct vmm_op){ .kind = VMM_OP_REMOVE,
				.added = VMM_OP_ADD_NET,
				.id = VMM_NET_ID,
				.slot = sv->link.slot },
			detach_ended);
}

void sv_link_gone(struct sv *sv, const char *id)
{
	sv->link.gone |= sv->link.attached && str_eq(id, VMM_NET_ID);
}

void sv_link_told(struct sv *sv, int error)
{
	if (!sv->link.timer)
		return;
	if (error == 0)
		link_answer(sv, 0, NULL, NULL);
	else
		link_not_set_up(
			sv, -error, error == ETIMEDOUT ? "its kernel shows none" : strerror(error));
}

void sv_link_again(struct sv *sv)
{
	if (sv->link.attached)
		(void)sv_agent_link(sv->agent);
}

/* What was asked by way of another channel may be lost, or its answer. */
void sv_link_agent_called(struct sv *sv)
{
	if (sv->link.timer)
		(void)sv_agent_link(sv->agent);
}

bool sv_link_is_coming(const struct sv *sv)
{
	return sv->link.timer || (sv->change.busy && sv->change.op.kind == VMM_OP_ADD_NET);
}

void sv_link_lost(struct sv *sv)
{
	if (sv->link.timer)
		link_answer_lost(sv);
}

void sv_link_forget(struct sv *sv, struct control_call *call)
{
	if (sv->link.call == call)
		sv->link.call = NULL;
}

void sv_link_finish(struct sv *sv)
{
	link_answer(sv, -ESHUTDOWN, "the VM ended", NULL);
}
