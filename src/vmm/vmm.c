#include "vmm.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-event.h>
#include <time.h>

#include "cleanup.h"
#include "fd.h"
#include "str.h"
#include "vmm-impl.h"
#include "vmm-program.h"
#include "vmm-version.h"

static const struct vmm_backend *const backends[] = { &vmm_backend_ch, &vmm_backend_qemu,
	&vmm_backend_null };

const struct vmm_backend *vmm_backend_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(backends); i++) {
		if (str_eq(backends[i]->name, name))
			return backends[i];
	}
	return NULL;
}

const char *vmm_backend_name(const struct vmm_backend *b)
{
	return b->name;
}

unsigned vmm_backend_caps(const struct vmm_backend *b)
{
	return b->caps;
}

int vmm_backend_program(const struct vmm_backend *b, char **ret)
{
	return vmm_program_find(b->program, b->program_env, ret);
}

int vmm_check(const struct vmm_backend *b, const struct vmm_config *c, char **ret_reason)
{
	CLEANUP_FREE char *reason = NULL;

	if (c->restore && !(b->caps & VMM_CAP_SNAPSHOT))
		reason = str_printf("restoring a snapshot: not supported by back-end %s", b->name);
	else if (str_eq(c->accel, "kvm") && !(b->caps & VMM_CAP_KVM))
		reason = str_printf("back-end %s cannot use KVM", b->name);
	else if (c->n_disks > VMM_DISKS_MAX)
		reason = str_printf("%zu disks: at most %d", c->n_disks, VMM_DISKS_MAX);
	else if (b->check)
		reason = b->check(c);
	if (!reason)
		return 0;
	*ret_reason = TAKE_PTR(reason);
	return -EOPNOTSUPP;
}

char *vmm_check_snapshot(const struct vmm_backend *b, uint32_t version, size_t n_volumes)
{
	if (!(b->caps & VMM_CAP_SNAPSHOT))
		return str_printf("a snapshot: not supported by back-end %s", b->name);
	return b->check_snapshot ? b->check_snapshot(version, n_volumes) : NULL;
}

bool vmm_can_restore_on_demand(const struct vmm_backend *b, uint32_t version)
{
	return b->can_restore_on_demand && b->can_restore_on_demand(version);
}

int vmm_command(const struct vmm_backend *b, const struct vmm_config *c, char ***ret_argv)
{
	CLEANUP(strv_freep) char **argv = NULL;
	CLEANUP_FREE char *program = NULL;
	int r;

	r = vmm_backend_program(b, &program);
	if (r < 0)
		return r;
	r = strv_push(&argv, program);
	if (r < 0)
		return r;
	r = b->arguments(c, &argv);
	if (r < 0)
		return r;
	*ret_argv = TAKE_PTR(argv);
	return 0;
}

int vmm_backend_version(const struct vmm_backend *b, const struct vm_dirs *dirs,
	const char *program, uint32_t *ret, char **ret_reason)
{
	char text[VMM_VERSION_TEXT_MAX] = "";
	int r;

	*ret = 0;
	if (!b->version)
		return 0;
	r = vmm_version_ask(dirs, program, text);
	if (r < 0) {
		*ret_reason = str_printf("%s --version does not answer: %s", program, strerror(-r));
		return -EOPNOTSUPP;
	}
	*ret = b->version(text, ret_reason);
	return *ret ? 0 : -EOPNOTSUPP;
}

int vmm_calls(const struct vmm_backend *b, const struct vmm_config *c, char ***ret_calls)
{
	CLEANUP(strv_freep) char **calls = NULL;
	int r = b->calls ? b->calls(c, &calls) : 0;

	if (r < 0)
		return r;
	*ret_calls = TAKE_PTR(calls);
	return 0;
}

void vmm_channels_close(const struct vmm_channels *c)
{
	fd_close(c->control_fd);
	fd_close(c->events_fd);
	fd_close(c->net_fd);
	fd_close(c->restore_fd);
}

int vmm_attach_consume(const struct vmm_backend *b, sd_event *event,
	const struct vmm_channels *channels, const char *const *calls, vmm_handler handler,
	void *userdata, struct vmm **ret)
{
	struct vmm *v = calloc(1, sizeof *v);
	int r;

	if (!v) {
		vmm_channels_close(channels);
		return -ENOMEM;
	}
	*v = (struct vmm){ .backend = b, .event = event, .handler = handler, .userdata = userdata };
	r = b->attach_consume(v, channels, calls);
	if (r < 0) {
		free(v);
		return r;
	}
	*ret = v;
	return 0;
}

void vmm_op_end(struct vmm *v, int error, const char *reason)
{
	vmm_op_done done = v->op_done;

	v->op_timer = sd_event_source_disable_unref(v->op_timer);
	v->op_done = NULL;
	if (done)
		done(v, error, reason, v->op_userdata);
}

static int op_on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct vmm *v = userdata;

	if (v->backend->forget)
		v->backend->forget(v);
	vmm_op_end(v, -ETIMEDOUT, "it was not done in time");
	return 0;
}

static int op_begin(struct vmm *v, const struct vmm_op *op)
{
	uint64_t usec = op->kind == VMM_OP_SNAPSHOT ? VMM_SNAPSHOT_USEC
			: op->kind == VMM_OP_ADD_FS ? VMM_FS_USEC
						    : VMM_OP_USEC;
	int r = sd_event_add_time_relative(
		v->event, &v->op_timer, CLOCK_MONOTONIC, usec, 0, op_on_timer, v);

	return r < 0 ? r : v->backend->operate(v, op);
}

/* What each needs; 0 where that is said by what was added. */
static const unsigned op_caps[] = {
	[VMM_OP_PAUSE] = VMM_CAP_PAUSE,
	[VMM_OP_RESUME] = VMM_CAP_PAUSE,
	[VMM_OP_MEMORY] = VMM_CAP_MEMORY,
	[VMM_OP_CPUS] = VMM_CAP_CPUS,
	[VMM_OP_ADD_DISK] = VMM_CAP_DISKS,
	[VMM_OP_ADD_NET] = VMM_CAP_NET_LIVE,
	[VMM_OP_ADD_PMEM] = VMM_CAP_PMEM_LIVE,
	[VMM_OP_ADD_FS] = VMM_CAP_FS_LIVE,
	[VMM_OP_REMOVE] = 0,
	[VMM_OP_SNAPSHOT] = VMM_CAP_SNAPSHOT,
	[VMM_OP_VSOCK_OUT] = VMM_CAP_VSOCK_OUT,
	[VMM_OP_VSOCK_IN] = VMM_CAP_VSOCK_OUT,
};
static_assert(ARRAY_SIZE(op_caps) == VMM_OPS, "every operation has a capability");

static int op_check(const struct vmm *v, const struct vmm_op *op)
{
	unsigned needed = op_caps[op->kind];

	if (op->kind == VMM_OP_REMOVE) {
		if (op->added < VMM_OP_ADD_DISK || op->added > VMM_OP_ADD_FS)
			return -EINVAL;
		needed = op->added == VMM_OP_ADD_PMEM ? VMM_CAP_PMEM_REMOVED : op_caps[op->added];
	}
	return v->backend->caps & needed ? 0 : -EOPNOTSUPP;
}

int vmm_operate(struct vmm *v, const struct vmm_op *op, vmm_op_done done, void *userdata)
{
	int r = op_check(v, op);

	if (r < 0)
		return r;
	if (v->op_done)
		return -EBUSY;
	v->op_done = done;
	v->op_userdata = userdata;
	r = op_begin(v, op);
	if (r < 0) {
		v->op_timer = sd_event_source_disable_unref(v->op_timer);
		v->op_done = NULL;
	}
	return r;
}

void vmm_cancel(struct vmm *v)
{
	if (v->op_done && v->backend->cancel)
		v->backend->cancel(v);
}

int vmm_save(const struct vmm *v, struct vmm_saved *ret)
{
	if (v->op_done)
		return -EBUSY;
	return v->backend->save(v, ret);
}

int vmm_restore_consume(const struct vmm_backend *b, sd_event *event, const struct vmm_saved *saved,
	vmm_handler handler, void *userdata, struct vmm **ret)
{
	struct vmm *v = calloc(1, sizeof *v);
	int r;

	if (!v) {
		vmm_channels_close(
			&(struct vmm_channels){ saved->fd, saved->events_fd, -EBADF, -EBADF });
		return -ENOMEM;
	}
	*v = (struct vmm){ .backend = b, .event = event, .handler = handler, .userdata = userdata };
	r = b->restore_consume(v, saved);
	if (r < 0) {
		free(v);
		return r;
	}
	*ret = v;
	return 0;
}

const char *vmm_owes(const struct vmm *v)
{
	return v && v->backend->owes ? v->backend->owes(v) : NULL;
}

int vmm_power_button(struct vmm *v)
{
	return v->backend->power_button(v);
}

int vmm_quit(struct vmm *v)
{
	return v->backend->quit(v);
}

void vmm_destroy(struct vmm *v)
{
	if (!v)
		return;
	sd_event_source_disable_unref(v->op_timer);
	v->backend->detach(v);
	free(v);
}
