/*
 * QEMU's q35 machine, with KVM or by emulation.
 *
 * q35 because the microvm type shows the guest no SMBIOS. Memory is a shared, sealed memfd, so that
 * the vsock device process can map it and trust its size. Files come as /proc/self/fd/N: the process
 * needs no path of the host, and -sandbox forbids it to spawn, to gain privileges or to change limits.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "fd.h"
#include "qemu-ask.h"
#include "qemu-config.h"
#include "qemu-cpus.h"
#include "qemu-plug.h"
#include "qmp.h"
#include "str.h"
#include "vmm-impl.h"
#include "vmm-program.h"

struct vmm_qemu {
	struct qmp *qmp;     /* owned */
	struct qemu_ask ask; /* of the operation under way */
	char *error;         /* owned: the first one of its answers */
	struct qemu_plug plug;
	int restore_fd; /* owned until QMP is ready: a snapshot's directory; -EBADF: boot */
	enum {
		QEMU_NOT_MIGRATING,
		QEMU_SAVING,     /* the event is waited for */
		QEMU_FINALIZING, /* it has come */
		QEMU_ASKING,     /* it failed: why? */
		QEMU_LOADING,    /* a snapshot is read; then the guest gets its vsock device */
		QEMU_RESUMING,   /* and goes on */
	} migrating;
	const char *migrated; /* static: how it ended, once it has; NULL */
	/* CPUs that come and go: asked which there are, told what to do about it, and asked again */
	uint32_t cpus_goal; /* 0: that is not under way */
	bool is_counting;
	size_t n_unplugs; /* CPUs that the guest is to give up */
};

#define QEMU_STATE "state" /* in a snapshot's directory: a migration stream */

static const char *qemu_text(struct json_object *data, const char *key)
{
	struct json_object *v;

	if (!data || !json_object_object_get_ex(data, key, &v))
		return NULL;
	return json_object_is_type(v, json_type_string) ? json_object_get_string(v) : NULL;
}

/* Reasons: QEMU qapi/run-state.json, ShutdownCause. Only what the guest did itself is its shutdown. */
static void qemu_on_shutdown(struct vmm *v, struct json_object *data)
{
	const char *reason = str_or(qemu_text(data, "reason"), "");

	if (str_eq(reason, "guest-panic"))
		vmm_emit(v, VMM_EVENT_PANICKED, reason);
	else if (str_has_prefix(reason, "guest-"))
		vmm_emit(v, VMM_EVENT_SHUTDOWN, reason);
}

static void qemu_cpus_end(struct vmm *v, int error, const char *reason)
{
	struct vmm_qemu *q = v->impl;

	q->cpus_goal = 0;
	q->n_unplugs = 0;
	vmm_op_end(v, error, reason);
}

static int qemu_cpus_count(struct vmm_qemu *q)
{
	q->is_counting = true;
	return qemu_ask(&q->ask, "query-hotpluggable-cpus");
}

static int qemu_cpus_ask(struct vmm_qemu *q, struct json_object *cpus)
{
	CLEANUP(strv_freep) char **commands = NULL;
	int r = qemu_cpus_commands(cpus, q->cpus_goal, &commands, &q->n_unplugs);

	for (char **c = commands; r >= 0 && c && *c; c++)
		r = qemu_ask_line(&q->ask, *c);
	return r;
}

/* All answers are there, and every CPU that was to go has gone. */
static void qemu_cpus_next(struct vmm *v, struct json_object *data)
{
	struct vmm_qemu *q = v->impl;
	int r;

	if (q->is_counting) {
		q->is_counting = false;
		r = qemu_cpus_ask(q, data);
	} else {
		r = qemu_cpus_count(q);
	}
	if (r < 0 || q->ask.n_results == 0)
		qemu_cpus_end(v, r, NULL);
}

static void qemu_on_deleted(struct vmm *v, const char *id)
{
	struct vmm_qemu *q = v->impl;

	if (qemu_plug_deleted(&q->plug, id) < 0)
		vmm_op_end(v, -EIO, "what is behind it stays");
}

/* What the guest says of a CPU that it is to give up; with emulation there is no DEVICE_DELETED. */
static void qemu_on_ost(struct vmm *v, struct json_object *data)
{
	struct vmm_qemu *q = v->impl;

	if (q->n_unplugs == 0)
		return;
	switch (qemu_cpus_ost(data)) {
	case QEMU_CPU_GONE:
		if (--q->n_unplugs == 0 && q->ask.n_results == 0)
			qemu_cpus_next(v, NULL);
		break;
	case QEMU_CPU_KEPT: qemu_cpus_end(v, -EIO, "the guest does not give it up"); break;
	case QEMU_CPU_NOTHING: break;
	}
}

/* saving and loading: a migration through a file */

#define QEMU_BANDWIDTH (UINT64_C(1) << 40) /* bytes/s; the default is 128 MiB/s */

/* FD is the file, taken over; VERB begins, and an event tells the end. */
static int qemu_migrate_consume(struct vmm_qemu *q, const char *verb, int fd)
{
	int r;

	q->migrated = NULL;
	r = qemu_ask_with(&q->ask, "migrate-set-capabilities",
		"\"capabilities\":[{\"capability\":\"events\",\"state\":true}]");
	if (r == 0)
		r = qemu_ask_with(&q->ask, "migrate-set-parameters", "\"max-bandwidth\":%llu",
			(unsigned long long)QEMU_BANDWIDTH);
	if (r < 0) {
		fd_close(fd);
		return r;
	}
	r = qemu_ask_fd_consume(&q->ask, fd, "getfd", "\"fdname\":\"state\"");
	return r < 0 ? r : qemu_ask_with(&q->ask, verb, "\"uri\":\"fd:state\"");
}

/* The directory is the VM's: nothing that is there already is written to. */
static int qemu_snapshot(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_qemu *q = v->impl;
	int fd = openat(
		    op->fd, QEMU_STATE, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600),
	    r;

	if (fd < 0)
		return -errno;
	r = qemu_migrate_consume(q, "migrate", fd);
	if (r == 0)
		q->migrating = QEMU_SAVING;
	return r;
}

static void qemu_load_failed(struct vmm *v, const char *why)
{
	CLEANUP_FREE char *text = str_printf("the snapshot cannot be loaded: %s", why);

	((struct vmm_qemu *)v->impl)->migrating = QEMU_NOT_MIGRATING;
	vmm_emit(v, VMM_EVENT_FAULT, text);
}

/* QMP is ready, and the process waits for what it shall go on from. */
static void qemu_load(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;
	CLEANUP_CLOSE int dir = TAKE_FD(q->restore_fd);
	int fd = openat(dir, QEMU_STATE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK),
	    r = fd < 0 ? -errno : qemu_migrate_consume(q, "migrate-incoming", fd);

	q->migrating = QEMU_LOADING;
	if (r < 0)
		qemu_load_failed(v, strerror(-r));
}

/* REASON may be the first error of its answers, which ends with it. */
static void qemu_save_ended(struct vmm *v, int error, const char *reason)
{
	struct vmm_qemu *q = v->impl;
	char *first = TAKE_PTR(q->error);

	q->migrating = QEMU_NOT_MIGRATING;
	vmm_op_end(v, error, reason);
	free(first);
}

/* Its memory is there. */
static void qemu_loaded(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;
	int r = qemu_plug_vsock(&q->ask); /* in front of the same uvms-vsockd */

	q->migrating = QEMU_RESUMING;
	if (r == 0)
		r = qemu_ask(&q->ask, "cont");
	if (r < 0)
		qemu_load_failed(v, strerror(-r));
}

/*
 * The event comes a moment before QEMU's migration thread has put the run state right; until then "cont" is refused. No
 * event tells of that, but the thread waits for nothing but the lock that is free between two commands.
 */
static void qemu_finalize(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;

	q->migrating = QEMU_FINALIZING;
	if (qemu_ask(&q->ask, "query-status") < 0)
		qemu_save_ended(v, -EIO, NULL);
}

static void qemu_finalized(struct vmm *v, struct json_object *data)
{
	struct vmm_qemu *q = v->impl;

	if (q->error) {
		qemu_save_ended(v, -EIO, q->error);
	} else if (str_eq(qemu_text(data, "status"), "finish-migrate")) {
		qemu_finalize(v);
	} else if (str_eq(q->migrated, "completed")) {
		qemu_save_ended(v, 0, NULL);
	} else if (str_eq(q->migrated, "cancelled")) {
		qemu_save_ended(v, -ECANCELED, "it was given up");
	} else {
		q->migrating = QEMU_ASKING;
		if (qemu_ask(&q->ask, "query-migrate") < 0)
			qemu_save_ended(v, -EIO, NULL);
	}
}

/* Of what it began, and of nothing else. */
static void qemu_on_migration(struct vmm *v, const char *status)
{
	static const char *const ends[] = { "completed", "failed", "cancelled" };
	struct vmm_qemu *q = v->impl;

	for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
		if (str_eq(status, ends[i]))
			q->migrated = ends[i];
	}
	if (!q->migrated || q->ask.n_results > 0)
		return;
	if (q->migrating == QEMU_SAVING)
		qemu_finalize(v);
	else if (q->migrating == QEMU_LOADING && str_eq(q->migrated, "completed"))
		qemu_loaded(v);
	else if (q->migrating == QEMU_LOADING)
		qemu_load_failed(v, "QEMU says only that it failed");
}

/* True: an answer that belongs to that; ERROR is the first one of those that have come. */
static bool qemu_migration_result(struct vmm *v, const char *error, struct json_object *data)
{
	struct vmm_qemu *q = v->impl;

	switch (q->migrating) {
	case QEMU_NOT_MIGRATING: return false;
	case QEMU_SAVING:
		if (error)
			q->migrating = QEMU_NOT_MIGRATING;
		else if (q->migrated)
			qemu_finalize(v);
		return !error;
	case QEMU_FINALIZING: qemu_finalized(v, data); return true;
	case QEMU_ASKING:
		qemu_save_ended(v, -EIO, str_or(qemu_text(data, "error-desc"), error));
		return true;
	case QEMU_LOADING:
		if (error)
			qemu_load_failed(v, error);
		else if (q->migrated)
			qemu_on_migration(v, q->migrated);
		return true;
	case QEMU_RESUMING:
		q->migrating = QEMU_NOT_MIGRATING;
		if (error)
			qemu_load_failed(v, error);
		else
			vmm_emit(v, VMM_EVENT_UP, NULL);
		return true;
	}
	return false;
}

static void qemu_on_event(struct vmm *v, const char *name, struct json_object *data)
{
	if (str_eq(name, "SHUTDOWN"))
		qemu_on_shutdown(v, data);
	else if (str_eq(name, "RESET"))
		vmm_emit(v, VMM_EVENT_RESET, qemu_text(data, "reason"));
	else if (str_eq(name, "DEVICE_DELETED"))
		qemu_on_deleted(v, qemu_text(data, "device"));
	else if (str_eq(name, "ACPI_DEVICE_OST"))
		qemu_on_ost(v, data);
	else if (str_eq(name, "MIGRATION"))
		qemu_on_migration(v, qemu_text(data, "status"));
	else if (str_eq(name, "POWERDOWN"))
		vmm_emit(v, VMM_EVENT_POWERDOWN, NULL);
	else if (str_eq(name, "GUEST_PANICKED"))
		vmm_emit(v, VMM_EVENT_PANICKED, qemu_text(data, "action"));
}

/* Answers come in order; the operation has ended when all have come, with the first error. */
static void qemu_on_result(struct vmm *v, const char *error, struct json_object *data)
{
	struct vmm_qemu *q = v->impl;
	CLEANUP_FREE char *first = NULL;
	int r;

	if (error && !qemu_plug_excuses(&q->plug, data) && !q->error)
		q->error = strdup(error);
	if (--q->ask.n_results > 0)
		return;
	if (qemu_migration_result(v, q->error, error ? NULL : data))
		return;
	r = qemu_plug_next(&q->plug, data, q->error != NULL);
	if (r > 0)
		return;
	if (q->cpus_goal && !q->error) {
		if (q->n_unplugs == 0)
			qemu_cpus_next(v, data);
		return;
	}
	first = TAKE_PTR(q->error);
	q->cpus_goal = 0;
	q->n_unplugs = 0;
	vmm_op_end(v, first ? -EIO : r, first);
}

static void qemu_on_ready(struct vmm *v)
{
	if (((struct vmm_qemu *)v->impl)->restore_fd >= 0)
		qemu_load(v);
	else
		vmm_emit(v, VMM_EVENT_UP, NULL);
}

static void qemu_on_qmp(struct qmp *q, enum qmp_kind kind, const char *name,
	struct json_object *data, void *userdata)
{
	struct vmm *v = userdata;

	switch (kind) {
	case QMP_READY: qemu_on_ready(v); break;
	case QMP_EVENT: qemu_on_event(v, name, data); break;
	case QMP_REPLY: break;
	case QMP_RESULT: qemu_on_result(v, name, data); break;
	case QMP_CLOSED: vmm_emit(v, VMM_EVENT_CLOSED, name); break;
	case QMP_FAULT: vmm_emit(v, VMM_EVENT_FAULT, name); break;
	}
}

/* SAVED NULL: a new conversation. FD is taken over whatever is returned. */
static int qemu_open(struct vmm *v, int fd, const struct vmm_saved *saved)
{
	struct vmm_qemu *q = calloc(1, sizeof *q);
	int r;

	if (!q) {
		fd_close(fd);
		return -ENOMEM;
	}
	q->restore_fd = -EBADF;
	if (saved)
		r = qmp_restore_consume(
			v->event, fd, saved->pending, saved->pending_len, qemu_on_qmp, v, &q->qmp);
	else
		r = qmp_create_consume(v->event, fd, qemu_on_qmp, v, &q->qmp);
	if (r < 0) {
		free(q);
		return r;
	}
	q->ask.qmp = q->qmp;
	q->plug.ask = &q->ask;
	v->impl = q;
	return 0;
}

static int qemu_attach_consume(
	struct vmm *v, const struct vmm_channels *c, const char *const *calls)
{
	int r;

	fd_close(c->events_fd);
	fd_close(c->net_fd);
	r = qemu_open(v, c->control_fd, NULL);
	if (r < 0)
		fd_close(c->restore_fd);
	else
		((struct vmm_qemu *)v->impl)->restore_fd = c->restore_fd;
	return r;
}

static int qemu_power_button(struct vmm *v)
{
	return qmp_execute(((struct vmm_qemu *)v->impl)->qmp, "system_powerdown");
}

static int qemu_quit(struct vmm *v)
{
	return qmp_execute(((struct vmm_qemu *)v->impl)->qmp, "quit");
}

static int qemu_memory(struct vmm_qemu *q, const struct vmm_op *op)
{
	if (op->bytes < op->boot_bytes)
		return -EOPNOTSUPP;
	return qemu_ask_with(&q->ask, "qom-set",
		"\"path\":\"/machine/peripheral/memory\",\"property\":\"requested-size\","
		"\"value\":%llu",
		(unsigned long long)(op->bytes - op->boot_bytes));
}

static void qemu_cancel(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;

	if (q->migrating == QEMU_SAVING)
		(void)qmp_execute(q->qmp, "migrate_cancel");
}

static void qemu_forget(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;

	qemu_plug_forget(&q->plug);
	qemu_cancel(v);
	q->migrating = QEMU_NOT_MIGRATING;
	q->cpus_goal = 0;
	q->n_unplugs = 0;
}

static int qemu_operate(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_qemu *q = v->impl;

	if (q->ask.n_results > 0)
		return -EBUSY; /* they belong to one that is over */
	switch (op->kind) {
	case VMM_OP_PAUSE: return qemu_ask(&q->ask, "stop");
	case VMM_OP_RESUME: return qemu_ask(&q->ask, "cont");
	case VMM_OP_MEMORY: return qemu_memory(q, op);
	case VMM_OP_CPUS: q->cpus_goal = op->cpus; return qemu_cpus_count(q);
	case VMM_OP_ADD_DISK:
	case VMM_OP_ADD_NET:
	case VMM_OP_ADD_PMEM:
	case VMM_OP_ADD_FS:
	case VMM_OP_VSOCK_IN: return qemu_plug_add(&q->plug, op);
	case VMM_OP_REMOVE:
	case VMM_OP_VSOCK_OUT: return qemu_plug_remove(&q->plug, op);
	case VMM_OP_SNAPSHOT: return qemu_snapshot(v, op);
	case VMM_OPS: break;
	}
	return -EOPNOTSUPP;
}

static int qemu_save(const struct vmm *v, struct vmm_saved *ret)
{
	const struct vmm_qemu *q = v->impl;

	ret->events_fd = -EBADF;
	return qmp_save(q->qmp, &ret->fd, &ret->pending, &ret->pending_len);
}

static int qemu_restore_consume(struct vmm *v, const struct vmm_saved *s)
{
	return qemu_open(v, s->fd, s);
}

static void qemu_detach(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;

	if (!q)
		return;
	qmp_destroy(q->qmp);
	fd_close(q->restore_fd);
	free(q->error);
	qemu_plug_end(&q->plug);
	free(q);
}

const struct vmm_backend vmm_backend_qemu = {
	.name = "qemu",
	.caps = VMM_CAP_POWER_BUTTON | VMM_CAP_VSOCK_DEVICE | VMM_CAP_KVM | VMM_CAP_TCG |
		VMM_CAP_REBOOT_ENDS | VMM_CAP_PAUSE | VMM_CAP_MEMORY | VMM_CAP_CPUS |
		VMM_CAP_DISKS | VMM_CAP_NET_LIVE | VMM_CAP_CPU_MODEL | VMM_CAP_SNAPSHOT |
		VMM_CAP_VSOCK_OUT | VMM_CAP_PMEM_LIVE | VMM_CAP_FS_LIVE,
	.program = VMM_PROGRAM_QEMU,
	.program_env = VMM_PROGRAM_QEMU_ENV,
	.arguments = qemu_config_arguments,
	.attach_consume = qemu_attach_consume,
	.power_button = qemu_power_button,
	.quit = qemu_quit,
	.operate = qemu_operate,
	.cancel = qemu_cancel,
	.forget = qemu_forget,
	.save = qemu_save,
	.restore_consume = qemu_restore_consume,
	.detach = qemu_detach,
};
