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
#include "qemu-cpus.h"
#include "qmp.h"
#include "str.h"
#include "vmm-impl.h"
#include "vmm-program.h"

/*
 * Sockets of one CPU each, so that a CPU is named by its socket alone. The memory that may come later is one
 * virtio-mem device, mapped from the start: what shares the guest's memory never has to learn of a new region.
 */
static int qemu_size(const struct vmm_config *c, char ***v)
{
	unsigned long long now = c->memory_bytes >> 20, most = c->memory_max_bytes >> 20;
	int r = 0;

	r |= strv_push(v, "-smp");
	if (c->cpus_max > c->cpus)
		r |= strv_pushf(v, "%u,maxcpus=%u,sockets=%u,cores=1,threads=1", c->cpus,
			c->cpus_max, c->cpus_max);
	else
		r |= strv_pushf(v, "%u", c->cpus);
	r |= strv_push(v, "-m");
	r |= most > now ? strv_pushf(v, "%lluM,maxmem=%lluM", now, most)
			: strv_pushf(v, "%lluM", now);
	r |= strv_push(v, "-object");
	r |= strv_pushf(v, "memory-backend-memfd,id=mem,size=%lluM,share=on,seal=on", now);
	if (most > now) {
		r |= strv_push(v, "-object");
		r |= strv_pushf(v,
			"memory-backend-memfd,id=more,size=%lluM,share=on,seal=on,reserve=off",
			most - now);
		r |= strv_push(v, "-device");
		r |= strv_push(v, "virtio-mem-pci,id=memory,memdev=more,requested-size=0");
	}
	return r;
}

struct vmm_qemu {
	struct qmp *qmp;    /* owned */
	char *error;        /* owned: the first one of the operation under way */
	uint32_t n_results; /* answers to it that are still to come */
	char *removing;     /* owned: the device whose end is waited for; NULL: none */
	char *adding;       /* owned: what is taken back when it fails; NULL: nothing */
	uint32_t slot;      /* of either */
	/* CPUs that come and go: asked which there are, told what to do about it, and asked again */
	uint32_t cpus_goal; /* 0: that is not under way */
	bool is_counting;
	size_t n_unplugs; /* CPUs that the guest is to give up */
};

/* HPET costs 7-8 % of a core in an idle guest; S3 and S4 have no use here. */
static int qemu_machine(const struct vmm_config *c, char ***v)
{
	bool kvm = str_eq(c->accel, "kvm");
	int r = 0;

	r |= strv_push(v, "-nodefaults");
	r |= strv_push(v, "-no-user-config");
	r |= strv_push(v, "-display");
	r |= strv_push(v, "none");
	r |= strv_push(v, "-name");
	r |= strv_pushf(v, "guest=%s,process=uvms-%.10s", c->name, c->name);
	r |= strv_push(v, "-uuid");
	r |= strv_push(v, c->uuid);
	r |= strv_push(v, "-machine");
	r |= strv_push(v, "q35,hpet=off,smbus=off,usb=off,vmport=off,memory-backend=mem");
	r |= strv_push(v, "-accel");
	r |= strv_push(v, kvm ? "kvm" : "tcg,thread=multi");
	r |= strv_push(v, "-cpu");
	r |= strv_push(v, str_or(c->cpu_model, kvm ? "host" : "max,la57=off"));
	r |= qemu_size(c, v);
	r |= strv_push(v, "-sandbox");
	r |= strv_push(
		v, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	r |= strv_push(v, "-rtc");
	r |= strv_push(v, "base=utc");
	if (c->reboot_ends)
		r |= strv_push(v, "-no-reboot");
	return r;
}

static int qemu_channels(const struct vmm_config *c, char ***v)
{
	int r = 0;

	r |= strv_push(v, "-chardev");
	r |= strv_pushf(v, "socket,id=qmp,fd=%d", VMM_FD_CONTROL);
	r |= strv_push(v, "-mon");
	r |= strv_push(v, "chardev=qmp,mode=control");
	r |= strv_push(v, "-chardev");
	r |= strv_pushf(v, "socket,id=console,fd=%d", VMM_FD_CONSOLE);
	r |= strv_push(v, "-serial");
	r |= strv_push(v, "chardev:console");
	return r;
}

/* The vsock device has a root port of its own, so that it can be unplugged (it cannot be migrated). */
static int qemu_devices(const struct vmm_config *c, char ***v)
{
	int r = 0;

	r |= strv_push(v, "-device");
	r |= strv_push(v, "pcie-root-port,id=port-vsock,chassis=1,addr=0x4");
	r |= strv_push(v, "-chardev");
	r |= strv_pushf(v, "socket,id=vsock,fd=%d", VMM_FD_VSOCK);
	r |= strv_push(v, "-device");
	r |= strv_push(v, "vhost-user-vsock-pci,id=vsock0,chardev=vsock,bus=port-vsock");
	for (uint32_t i = 0; i < c->hotplug_slots; i++) {
		r |= strv_push(v, "-device");
		r |= strv_pushf(v, "pcie-root-port,id=port%u,chassis=%u,addr=0x%x.%u%s", i, i + 2,
			5 + i / 8, i % 8, i % 8 == 0 ? ",multifunction=on" : "");
	}
	r |= strv_push(v, "-object");
	r |= strv_push(v, "rng-builtin,id=rng");
	r |= strv_push(v, "-device");
	r |= strv_push(v, "virtio-rng-pci,id=rng0,rng=rng");
	r |= strv_push(v, "-device");
	r |= strv_push(v, "virtio-balloon-pci,id=balloon0,free-page-reporting=on");
	r |= strv_push(v, "-device");
	r |= strv_push(v, "pvpanic");
	return r;
}

/* passt gives one queue, and no offloads that it would have to undo. */
static int qemu_network(const struct vmm_config *c, char ***v)
{
	int r = 0;

	if (!c->net_mac)
		return 0;
	r |= strv_push(v, "-netdev");
	r |= strv_pushf(v, "stream,id=net,server=off,addr.type=fd,addr.str=%d", VMM_FD_NET);
	r |= strv_push(v, "-device");
	r |= strv_pushf(v, "virtio-net-pci,id=net0,netdev=net,mac=%s,romfile=", c->net_mac);
	return r;
}

/*
 * A writable disk is used through its descriptor itself: opening /proc/self/fd/N again would ask for
 * the file's permissions, and would leave the lock on it behind.
 */
static int qemu_disk(const struct vmm_disk *d, size_t i, char ***v)
{
	int r = 0;

	if (d->read_only) {
		r |= strv_push(v, "-blockdev");
		r |= strv_pushf(v,
			"driver=raw,node-name=disk%zu,read-only=on,file.driver=file,"
			"file.filename=/proc/self/fd/%zu,file.locking=off",
			i, VMM_FD_DISK + i);
		return r;
	}
	r |= strv_push(v, "-add-fd");
	r |= strv_pushf(v, "fd=%zu,set=%zu", VMM_FD_DISK + i, VMM_FD_DISK + i);
	r |= strv_push(v, "-blockdev");
	r |= strv_pushf(v,
		"driver=raw,node-name=disk%zu,discard=unmap,detect-zeroes=unmap,file.driver=file,"
		"file.filename=/dev/fdset/%zu,file.locking=off,file.discard=unmap",
		i, VMM_FD_DISK + i);
	return r;
}

static int qemu_disks(const struct vmm_config *c, char ***v)
{
	int r = 0;

	for (size_t i = 0; i < c->n_disks; i++) {
		r |= qemu_disk(&c->disks[i], i, v);
		r |= strv_push(v, "-device");
		r |= strv_pushf(v, "virtio-blk-pci,id=blk%zu,drive=disk%zu,serial=%s", i, i,
			c->disks[i].serial);
	}
	return r;
}

/* In an option's value a comma is written twice. */
static int qemu_push_oem(char ***v, const char *s)
{
	CLEANUP_FREE char *escaped = malloc(2 * strlen(s) + 1);
	char *p = escaped;

	if (!escaped)
		return -ENOMEM;
	for (; *s; s++) {
		if (*s == ',')
			*p++ = ',';
		*p++ = *s;
	}
	*p = 0;
	return strv_pushf(v, "type=11,value=%s", escaped);
}

static int qemu_payload(const struct vmm_config *c, char ***v)
{
	int r = 0;

	for (const char *const *s = c->oem_strings; s && *s; s++) {
		r |= strv_push(v, "-smbios");
		r |= qemu_push_oem(v, *s);
	}
	r |= strv_push(v, "-kernel");
	r |= strv_pushf(v, "/proc/self/fd/%d", VMM_FD_KERNEL);
	r |= strv_push(v, "-initrd");
	r |= strv_pushf(v, "/proc/self/fd/%d", VMM_FD_INITRD);
	r |= strv_push(v, "-append");
	r |= strv_push(v, c->kernel_cmdline);
	return r;
}

static int qemu_arguments(const struct vmm_config *c, char ***argv)
{
	static int (*const parts[])(const struct vmm_config *, char ***) = {
		qemu_machine,
		qemu_channels,
		qemu_devices,
		qemu_network,
		qemu_disks,
		qemu_payload,
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (parts[i](c, argv) < 0)
			return -ENOMEM;
	}
	return 0;
}

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

/*
 * A disk is three things: a set with the descriptor, a block node, a device on a root port. The set is named by
 * its slot, the others by the id. They are made in this order and taken back in the reverse one.
 */
#define QEMU_SET(slot) (100 + (slot))

static int qemu_ask_more(struct vmm_qemu *q, char *command, int fd)
{
	int r = qmp_ask_consume(q->qmp, command, fd);

	q->n_results += r == 0;
	return r;
}

/* What is behind a device: of a network its socket, which has no set. */
static int qemu_drop_behind(struct vmm_qemu *q, const char *id, uint32_t slot)
{
	int r;

	if (str_eq(id, VMM_NET_ID))
		return qemu_ask_more(q,
			strdup("{\"execute\":\"netdev_del\",\"arguments\":{\"id\":\"" VMM_NET_ID
			       "\"}}"),
			-EBADF);

	r = qemu_ask_more(q,
		str_printf(
			"{\"execute\":\"blockdev-del\",\"arguments\":{\"node-name\":\"%s\"}}", id),
		-EBADF);
	return r < 0 ? r
		     : qemu_ask_more(q,
			       str_printf("{\"execute\":\"remove-fd\",\"arguments\":"
					  "{\"fdset-id\":%u}}",
				       QEMU_SET(slot)),
			       -EBADF);
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
	return qemu_ask_more(q, strdup("{\"execute\":\"query-hotpluggable-cpus\"}"), -EBADF);
}

static int qemu_cpus_ask(struct vmm_qemu *q, struct json_object *cpus)
{
	CLEANUP(strv_freep) char **commands = NULL;
	int r = qemu_cpus_commands(cpus, q->cpus_goal, &commands, &q->n_unplugs);

	for (char **c = commands; r >= 0 && c && *c; c++)
		r = qemu_ask_more(q, strdup(*c), -EBADF);
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
	if (r < 0 || q->n_results == 0)
		qemu_cpus_end(v, r, NULL);
}

/* The guest gave it up: what is behind it goes, and then it is over. */
static void qemu_on_deleted(struct vmm *v, const char *id)
{
	struct vmm_qemu *q = v->impl;
	CLEANUP_FREE char *removing = NULL;

	if (!str_eq(q->removing, id))
		return;
	removing = TAKE_PTR(q->removing);
	if (qemu_drop_behind(q, removing, q->slot) < 0)
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
		if (--q->n_unplugs == 0 && q->n_results == 0)
			qemu_cpus_next(v, NULL);
		break;
	case QEMU_CPU_KEPT: qemu_cpus_end(v, -EIO, "the guest does not give it up"); break;
	case QEMU_CPU_NOTHING: break;
	}
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
	else if (str_eq(name, "POWERDOWN"))
		vmm_emit(v, VMM_EVENT_POWERDOWN, NULL);
	else if (str_eq(name, "GUEST_PANICKED"))
		vmm_emit(v, VMM_EVENT_PANICKED, qemu_text(data, "action"));
}

/* What a failed addition made is taken back before it is told. True: that is under way. */
static bool qemu_take_back(struct vmm_qemu *q)
{
	CLEANUP_FREE char *adding = TAKE_PTR(q->adding);

	return adding && q->error && qemu_drop_behind(q, adding, q->slot) == 0;
}

/* Answers come in order; the operation has ended when all have come, with the first error. */
static void qemu_on_result(struct vmm *v, const char *error, struct json_object *data)
{
	struct vmm_qemu *q = v->impl;
	CLEANUP_FREE char *first = NULL;

	if (error && !q->error)
		q->error = strdup(error);
	if (--q->n_results > 0 || qemu_take_back(q))
		return;
	/* device_del was accepted: its event is the end */
	if (q->removing && !q->error)
		return;
	if (q->cpus_goal && !q->error) {
		if (q->n_unplugs == 0)
			qemu_cpus_next(v, data);
		return;
	}
	free(TAKE_PTR(q->removing));
	first = TAKE_PTR(q->error);
	q->cpus_goal = 0;
	q->n_unplugs = 0;
	vmm_op_end(v, first ? -EIO : 0, first);
}

static void qemu_on_qmp(struct qmp *q, enum qmp_kind kind, const char *name,
	struct json_object *data, void *userdata)
{
	struct vmm *v = userdata;

	switch (kind) {
	case QMP_READY: vmm_emit(v, VMM_EVENT_UP, NULL); break;
	case QMP_EVENT: qemu_on_event(v, name, data); break;
	case QMP_REPLY: break;
	case QMP_RESULT: qemu_on_result(v, data ? NULL : str_or(name, "?"), data); break;
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
	if (saved)
		r = qmp_restore_consume(
			v->event, fd, saved->pending, saved->pending_len, qemu_on_qmp, v, &q->qmp);
	else
		r = qmp_create_consume(v->event, fd, qemu_on_qmp, v, &q->qmp);
	if (r < 0) {
		free(q);
		return r;
	}
	v->impl = q;
	return 0;
}

static int qemu_attach_consume(
	struct vmm *v, const struct vmm_channels *c, const char *const *calls)
{
	fd_close(c->events_fd);
	fd_close(c->net_fd);
	return qemu_open(v, c->control_fd, NULL);
}

static int qemu_power_button(struct vmm *v)
{
	return qmp_execute(((struct vmm_qemu *)v->impl)->qmp, "system_powerdown");
}

static int qemu_quit(struct vmm *v)
{
	return qmp_execute(((struct vmm_qemu *)v->impl)->qmp, "quit");
}

static int qemu_ask(struct vmm *v, char *command)
{
	struct vmm_qemu *q = v->impl;
	int r = qmp_ask_consume(q->qmp, command, -EBADF);

	if (r == 0)
		q->n_results = 1;
	return r;
}

static int qemu_add_disk(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_qemu *q = v->impl;
	int fd = fcntl(op->fd, F_DUPFD_CLOEXEC, 3), r;

	if (fd < 0 || str_set(&q->adding, op->id) < 0) {
		fd_close(fd);
		return -ENOMEM;
	}
	q->slot = op->slot;
	r = qemu_ask_more(q,
		str_printf("{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":%u}}",
			QEMU_SET(op->slot)),
		fd);
	if (r == 0)
		r = qemu_ask_more(q,
			str_printf("{\"execute\":\"blockdev-add\",\"arguments\":{\"driver\":"
				   "\"raw\",\"node-name\":\"%s\",\"discard\":\"unmap\","
				   "\"detect-zeroes\":\"unmap\",\"file\":{\"driver\":\"file\","
				   "\"filename\":\"/dev/fdset/%u\",\"locking\":\"off\","
				   "\"discard\":\"unmap\"}}}",
				op->id, QEMU_SET(op->slot)),
			-EBADF);
	if (r == 0)
		r = qemu_ask_more(q,
			str_printf("{\"execute\":\"device_add\",\"arguments\":{\"driver\":"
				   "\"virtio-blk-pci\",\"id\":\"%s\",\"drive\":\"%s\","
				   "\"serial\":\"%s\",\"bus\":\"port%u\"}}",
				op->id, op->id, op->serial, op->slot),
			-EBADF);
	return r;
}

/*
 * passt's socket gets a name, then a netdev, then a device. It is a netdev "socket", which frames as "stream" does:
 * that one connects in a thread (7.2), where names of descriptors mean nothing.
 */
static int qemu_add_net(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_qemu *q = v->impl;
	int fd = fcntl(op->fd, F_DUPFD_CLOEXEC, 3), r;

	if (fd < 0 || str_set(&q->adding, op->id) < 0) {
		fd_close(fd);
		return -ENOMEM;
	}
	q->slot = op->slot;
	r = qemu_ask_more(q,
		strdup("{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"" VMM_NET_ID "\"}}"),
		fd);
	if (r == 0)
		r = qemu_ask_more(q,
			strdup("{\"execute\":\"netdev_add\",\"arguments\":{\"type\":\"socket\","
			       "\"id\":\"" VMM_NET_ID "\",\"fd\":\"" VMM_NET_ID "\"}}"),
			-EBADF);
	if (r == 0)
		r = qemu_ask_more(q,
			str_printf("{\"execute\":\"device_add\",\"arguments\":{\"driver\":"
				   "\"virtio-net-pci\",\"id\":\"%s\",\"netdev\":\"%s\",\"mac\":"
				   "\"%s\",\"romfile\":\"\",\"bus\":\"port%u\"}}",
				op->id, op->id, op->mac, op->slot),
			-EBADF);
	return r;
}

static int qemu_remove(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_qemu *q = v->impl;

	if (str_set(&q->removing, op->id) < 0)
		return -ENOMEM;
	q->slot = op->slot;
	return qemu_ask_more(q,
		str_printf("{\"execute\":\"device_del\",\"arguments\":{\"id\":\"%s\"}}", op->id),
		-EBADF);
}

/* A device that the guest gives up later is dropped then, as the next removal of it finds out. */
static void qemu_forget(struct vmm *v)
{
	struct vmm_qemu *q = v->impl;

	free(TAKE_PTR(q->removing));
	q->cpus_goal = 0;
	q->n_unplugs = 0;
}

static int qemu_operate(struct vmm *v, const struct vmm_op *op)
{
	struct vmm_qemu *q = v->impl;

	switch (op->kind) {
	case VMM_OP_PAUSE: return qemu_ask(v, strdup("{\"execute\":\"stop\"}"));
	case VMM_OP_RESUME: return qemu_ask(v, strdup("{\"execute\":\"cont\"}"));
	case VMM_OP_MEMORY:
		if (op->bytes < op->boot_bytes)
			return -EOPNOTSUPP;
		return qemu_ask(v, str_printf("{\"execute\":\"qom-set\",\"arguments\":{\"path\":"
					      "\"/machine/peripheral/memory\",\"property\":"
					      "\"requested-size\",\"value\":%llu}}",
					   (unsigned long long)(op->bytes - op->boot_bytes)));
	case VMM_OP_CPUS: q->cpus_goal = op->cpus; return qemu_cpus_count(q);
	case VMM_OP_ADD_DISK: return qemu_add_disk(v, op);
	case VMM_OP_ADD_NET: return qemu_add_net(v, op);
	case VMM_OP_REMOVE: return qemu_remove(v, op);
	case VMM_OP_SNAPSHOT:
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
	free(q->error);
	free(q->removing);
	free(q->adding);
	free(q);
}

const struct vmm_backend vmm_backend_qemu = {
	.name = "qemu",
	.caps = VMM_CAP_POWER_BUTTON | VMM_CAP_VSOCK_DEVICE | VMM_CAP_KVM | VMM_CAP_TCG |
		VMM_CAP_REBOOT_ENDS | VMM_CAP_PAUSE | VMM_CAP_MEMORY | VMM_CAP_CPUS |
		VMM_CAP_DISKS | VMM_CAP_NET_LIVE | VMM_CAP_CPU_MODEL,
	.program = VMM_PROGRAM_QEMU,
	.program_env = VMM_PROGRAM_QEMU_ENV,
	.arguments = qemu_arguments,
	.attach_consume = qemu_attach_consume,
	.power_button = qemu_power_button,
	.quit = qemu_quit,
	.operate = qemu_operate,
	.forget = qemu_forget,
	.save = qemu_save,
	.restore_consume = qemu_restore_consume,
	.detach = qemu_detach,
};
