#include "qemu-plug.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>

#include "cleanup.h"
#include "qemu-ask.h"
#include "qemu-config.h"
#include "str.h"

#define PLUG_SET(slot) (100 + (slot)) /* above those of the command line */

/* ---- a disk ---- */

static int disk_add(struct qemu_plug *p, const struct vmm_op *op, int fd_consume)
{
	int r;

	r = qemu_ask_fd_consume(
		p->ask, fd_consume, "add-fd", "\"fdset-id\":%u", PLUG_SET(op->slot));
	if (r == 0)
		r = qemu_ask_with(p->ask, "blockdev-add",
			"\"driver\":\"raw\",\"node-name\":\"%s\",\"discard\":\"unmap\","
			"\"detect-zeroes\":\"unmap\",\"file\":{\"driver\":\"file\","
			"\"filename\":\"/dev/fdset/%u\",\"locking\":\"off\","
			"\"discard\":\"unmap\"}",
			op->id, PLUG_SET(op->slot));
	if (r == 0)
		r = qemu_ask_with(p->ask, "device_add",
			"\"driver\":\"virtio-blk-pci\",\"id\":\"%s\",\"drive\":\"%s\","
			"\"serial\":\"%s\",\"bus\":\"port%u\"",
			op->id, op->id, op->serial, op->slot);
	return r;
}

static int disk_drop(struct qemu_plug *p)
{
	int r = qemu_ask_with(p->ask, "blockdev-del", "\"node-name\":\"%s\"", p->id);

	return r < 0 ? r : qemu_ask_with(p->ask, "remove-fd", "\"fdset-id\":%u", PLUG_SET(p->slot));
}

/* ---- a socket ---- */

/* FD gets the name NAME, then a chardev that is named so, too, and takes it. */
static int socket_add(struct qemu_ask *ask, const char *name, int fd_consume)
{
	int r = qemu_ask_fd_consume(ask, fd_consume, "getfd", "\"fdname\":\"%s\"", name);

	return r < 0 ? r
		     : qemu_ask_with(ask, "chardev-add",
			       "\"id\":\"%s\",\"backend\":{\"type\":\"socket\",\"data\":{"
			       "\"server\":false,\"addr\":{\"type\":\"fd\",\"data\":{"
			       "\"str\":\"%s\"}}}}",
			       name, name);
}

/* A name that nothing took keeps the descriptor. */
static int socket_close(struct qemu_ask *ask, const char *name)
{
	return qemu_ask_with(ask, "closefd", "\"fdname\":\"%s\"", name);
}

static int socket_drop(struct qemu_ask *ask, const char *name)
{
	return qemu_ask_with(ask, "chardev-remove", "\"id\":\"%s\"", name);
}

/* ---- a network ---- */

/*
 * passt's socket gets a name, then a netdev, then a device. It is a netdev "socket", which frames as "stream" does:
 * that one connects in a thread (7.2), where names of descriptors mean nothing.
 */
static int net_add(struct qemu_plug *p, const struct vmm_op *op, int fd_consume)
{
	int r;

	r = qemu_ask_fd_consume(p->ask, fd_consume, "getfd", "\"fdname\":\"%s\"", op->id);
	if (r == 0)
		r = qemu_ask_with(p->ask, "netdev_add",
			"\"type\":\"socket\",\"id\":\"%s\",\"fd\":\"%s\"", op->id, op->id);
	if (r == 0)
		r = qemu_ask_with(p->ask, "device_add",
			"\"driver\":\"virtio-net-pci\",\"id\":\"%s\",\"netdev\":\"%s\","
			"\"mac\":\"%s\",\"romfile\":\"\",\"bus\":\"port%u\"",
			op->id, op->id, op->mac, op->slot);
	return r;
}

static int net_drop(struct qemu_plug *p)
{
	return qemu_ask_with(p->ask, "netdev_del", "\"id\":\"%s\"", p->id);
}

static int net_close(struct qemu_plug *p)
{
	return socket_close(p->ask, p->id);
}

/* ---- vsock ---- */

int qemu_plug_vsock(struct qemu_ask *ask)
{
	return qemu_ask_with(ask, "device_add",
		"\"driver\":\"" QEMU_VSOCK_DRIVER "\",\"id\":\"" QEMU_VSOCK
		"\",\"chardev\":\"" QEMU_VSOCK_CHARDEV "\",\"bus\":\"" QEMU_VSOCK_PORT "\"");
}

static int vsock_add(struct qemu_plug *p, const struct vmm_op *op, int fd_consume)
{
	int r = socket_add(p->ask, QEMU_VSOCK_CHARDEV, fd_consume);

	return r < 0 ? r : qemu_plug_vsock(p->ask);
}

static int vsock_drop(struct qemu_plug *p)
{
	return socket_drop(p->ask, QEMU_VSOCK_CHARDEV);
}

static int vsock_close(struct qemu_plug *p)
{
	return socket_close(p->ask, QEMU_VSOCK_CHARDEV);
}

/* ---- a shared directory ---- */

static int fs_add(struct qemu_plug *p, const struct vmm_op *op, int fd_consume)
{
	int r = socket_add(p->ask, op->id, fd_consume);

	return r < 0 ? r
		     : qemu_ask_with(p->ask, "device_add",
			       "\"driver\":\"vhost-user-fs-pci\",\"id\":\"%s\",\"chardev\":\"%s\","
			       "\"tag\":\"%s\",\"queue-size\":%d,\"bus\":\"port%u\"",
			       op->id, op->id, op->tag, VMM_FS_QUEUE, op->slot);
}

static int fs_drop(struct qemu_plug *p)
{
	return socket_drop(p->ask, p->id);
}

static int fs_close(struct qemu_plug *p)
{
	return socket_close(p->ask, p->id);
}

/* ---- a file as persistent memory ---- */

/* A memory backend opens a path, and which one leads to the descriptor only QEMU can tell: it has its own numbers. */
static int pmem_add(struct qemu_plug *p, const struct vmm_op *op, int fd_consume)
{
	p->phase = QEMU_PLUG_OPENING;
	p->bytes = op->bytes;
	return qemu_ask_fd_consume(
		p->ask, fd_consume, "add-fd", "\"fdset-id\":%u", PLUG_SET(op->slot));
}

/* It has the file open itself then: the set can go at once. */
static int pmem_opened(struct qemu_plug *p, struct json_object *data)
{
	struct json_object *fd = NULL;
	int r;

	if (!data || !json_object_object_get_ex(data, "fd", &fd) ||
		!json_object_is_type(fd, json_type_int))
		return -EPROTO;
	p->phase = QEMU_PLUG_ADDING;
	r = qemu_ask_with(p->ask, "object-add",
		"\"qom-type\":\"memory-backend-file\",\"id\":\"%s\",\"size\":%llu,"
		"\"mem-path\":\"/proc/self/fd/%d\",\"share\":true,\"readonly\":true",
		p->id, (unsigned long long)p->bytes, json_object_get_int(fd));
	if (r == 0)
		r = qemu_ask_with(p->ask, "remove-fd", "\"fdset-id\":%u", PLUG_SET(p->slot));
	if (r == 0)
		r = qemu_ask_with(p->ask, "device_add",
			"\"driver\":\"virtio-pmem-pci\",\"id\":\"%s\",\"memdev\":\"%s\","
			"\"bus\":\"port%u\"",
			p->id, p->id, p->slot);
	return r;
}

static int pmem_drop(struct qemu_plug *p)
{
	return qemu_ask_with(p->ask, "object-del", "\"id\":\"%s\"", p->id);
}

/* ---- all of them ---- */

static const struct {
	int (*add)(struct qemu_plug *p, const struct vmm_op *op, int fd_consume);
	int (*drop)(struct qemu_plug *p);  /* what is behind the device */
	int (*close)(struct qemu_plug *p); /* what that would have taken; NULL: drop() does */
} kinds[VMM_OPS] = {
	[VMM_OP_ADD_DISK] = { disk_add, disk_drop },
	[VMM_OP_ADD_NET] = { net_add, net_drop, net_close },
	[VMM_OP_ADD_PMEM] = { pmem_add, pmem_drop },
	[VMM_OP_ADD_FS] = { fs_add, fs_drop, fs_close },
	[VMM_OP_VSOCK_IN] = { vsock_add, vsock_drop, vsock_close },
};

static int plug_begin(struct qemu_plug *p, enum vmm_op_kind kind, const char *id, uint32_t slot)
{
	if (str_set(&p->id, id) < 0)
		return -ENOMEM;
	p->kind = kind;
	p->slot = slot;
	p->is_gone = false;
	return 0;
}

int qemu_plug_add(struct qemu_plug *p, const struct vmm_op *op)
{
	CLEANUP_CLOSE int fd = fcntl(op->fd, F_DUPFD_CLOEXEC, 3);
	int r;

	if (fd < 0)
		return -errno;
	r = plug_begin(p, op->kind, op->kind == VMM_OP_VSOCK_IN ? QEMU_VSOCK : op->id, op->slot);
	if (r < 0)
		return r;
	p->phase = QEMU_PLUG_ADDING;
	return kinds[op->kind].add(p, op, TAKE_FD(fd));
}

int qemu_plug_remove(struct qemu_plug *p, const struct vmm_op *op)
{
	int r = op->kind == VMM_OP_VSOCK_OUT ? plug_begin(p, VMM_OP_VSOCK_IN, QEMU_VSOCK, 0)
					     : plug_begin(p, op->added, op->id, op->slot);

	if (r < 0)
		return r;
	p->phase = QEMU_PLUG_REMOVING;
	return qemu_ask_with(p->ask, "device_del", "\"id\":\"%s\"", p->id);
}

static int plug_drop(struct qemu_plug *p)
{
	p->phase = QEMU_PLUG_DROPPING;
	return kinds[p->kind].drop(p);
}

/* What failed to be added; that some of it was never made is an error that nobody hears of. */
static int plug_take_back(struct qemu_plug *p)
{
	int r = plug_drop(p);

	return r == 0 && kinds[p->kind].close ? kinds[p->kind].close(p) : r;
}

bool qemu_plug_excuses(struct qemu_plug *p, struct json_object *data)
{
	struct json_object *class = NULL;

	/* a guest gives a device up when it likes: after the end of the wait for it, or unasked */
	if (p->phase == QEMU_PLUG_REMOVING && data &&
		json_object_object_get_ex(data, "class", &class) &&
		str_eq(json_object_get_string(class), "DeviceNotFound"))
		p->is_gone = true;
	return p->is_gone;
}

int qemu_plug_next(struct qemu_plug *p, struct json_object *data, bool failed)
{
	int r = 0;

	if (p->phase == QEMU_PLUG_REMOVING && !p->is_gone && !failed)
		return 1; /* device_del was accepted: its event is the end */
	if (p->phase == QEMU_PLUG_REMOVING && p->is_gone)
		r = plug_drop(p);
	else if (p->phase == QEMU_PLUG_ADDING && failed)
		r = plug_take_back(p);
	else if (p->phase == QEMU_PLUG_OPENING && !failed)
		r = pmem_opened(p, data);
	else
		qemu_plug_end(p);
	return r < 0 ? r : p->phase != QEMU_PLUG_IDLE;
}

int qemu_plug_deleted(struct qemu_plug *p, const char *id)
{
	if (p->phase != QEMU_PLUG_REMOVING || !str_eq(p->id, id))
		return 0;
	return plug_drop(p);
}

void qemu_plug_forget(struct qemu_plug *p)
{
	/* what fails to be added is still taken back */
	if (p->phase == QEMU_PLUG_REMOVING)
		qemu_plug_end(p);
}

void qemu_plug_end(struct qemu_plug *p)
{
	p->phase = QEMU_PLUG_IDLE;
	p->is_gone = false;
	free(TAKE_PTR(p->id));
}
