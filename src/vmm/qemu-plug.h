/*
 * Devices that QEMU gets while it runs and that its guest gives up again, one at a time, each on the root port of its
 * slot.
 *
 * Behind a device stands what is made before it and goes after it: of a disk a set with its descriptor and a block node
 * on that, of a network a netdev, of vsock and of virtio-fs a chardev, of persistent memory a memory backend. All of it has the device's id (the set: the slot's number) for its
 * name, so that nothing has to be remembered between two operations, and what failed half-way is taken back as a whole.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vmm.h"

struct json_object;
struct qemu_ask;

struct qemu_plug {
	struct qemu_ask *ask; /* borrowed: all commands go there */

	enum {
		QEMU_PLUG_IDLE,
		QEMU_PLUG_OPENING, /* QEMU is asked for the number that it gave a descriptor */
		QEMU_PLUG_ADDING,
		QEMU_PLUG_REMOVING, /* the guest is to give it up: the event is waited for */
		QEMU_PLUG_DROPPING, /* there is no device (any more): what is behind it goes */
	} phase;
	enum vmm_op_kind kind; /* by which it is, or was, added */
	char *id;              /* owned */
	uint32_t slot;
	uint64_t bytes; /* of a file that is to be memory */
	bool is_gone;   /* the guest had given it up before: what is behind it may be gone, too */
};

/* Both begin OP: 0 or -errno. */
int qemu_plug_add(struct qemu_plug *p, const struct vmm_op *op);
int qemu_plug_remove(struct qemu_plug *p, const struct vmm_op *op);

/* The vsock device on its own port, with the chardev that is there already; no phase of it. */
int qemu_plug_vsock(struct qemu_ask *ask);

/* An answer is an error with this DATA. True: it is none, since that is what was to be reached. */
bool qemu_plug_excuses(struct qemu_plug *p, struct json_object *data);

/*
 * All answers are there, the last one with DATA (borrowed); FAILED: an error was among them. 1: more was asked, or an event is waited for; 0: it is over,
 * or nothing was under way; -errno.
 */
int qemu_plug_next(struct qemu_plug *p, struct json_object *data, bool failed);

/* The event DEVICE_DELETED. 0, also when it is of no interest; -errno: the removal ends with it. */
int qemu_plug_deleted(struct qemu_plug *p, const char *id);

/* The event is not waited for any more: a device that the guest gives up later is dropped by the next removal of it. */
void qemu_plug_forget(struct qemu_plug *p);
void qemu_plug_end(struct qemu_plug *p);
