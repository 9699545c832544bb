/*
 * One vhost-user session: the back-end's side of the socket to a VMM. Knows nothing of the device.
 *
 * Theory of operation. Messages arrive on a stream socket, descriptors beside them. The header is
 * read to its last byte, then exactly its payload: a sender may trickle bytes, we never wait for
 * one. Descriptors that came with a message live in the session until its handler takes them or
 * the message ends; what is left over is closed. Any fault of the front-end (unknown request,
 * wrong size, wrong number of descriptors, out of order, impossible memory) ends the session with
 * a reason: the VMM is trusted with nothing but its own VM, and a session that has lost step cannot
 * be guessed back. A fault of the *guest* (its rings) only breaks that queue.
 *
 * A queue runs from its kick descriptor on (once it is enabled) to GET_VRING_BASE. A VMM stops the
 * queues for a pause as well as for a reset of the guest, and starts them again on the same socket;
 * the device learns of a reset by a ring position that is not the one it stopped at. The position is that of
 * the used ring in guest memory, since every chain is finished before a queue can stop: what SET_VRING_BASE says is
 * kept and told again, but not believed. Cloud Hypervisor says the driver's own index there, for a session that
 * goes on another one's rings too, and with it all buffers that the driver has put there would be passed over.
 *
 * Nothing here blocks: a front-end that does not take replies loses the session.
 *
 * A successor can take a session over (vu-resume.h). A message that lies whole in the socket is looked at
 * there (MSG_PEEK), obeyed, and the new state committed (vu-keep.h); only then it is taken out and answered. To
 * obey a message twice is the same as once, so a death before that costs nothing: the successor finds it
 * again. Taking and answering leave exact notes. Only while a message that came in pieces is being put
 * together, which no front-end does that writes a message by one call, a death cannot be made good.
 */
#pragma once

#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include "guest-mem.h"
#include "loop.h"
#include "virtq.h"
#include "vu-keep.h"
#include "vu-wire.h"

#define VU_QUEUES_MAX 3

#define VU_TRANSPORT_FEATURES                                                                      \
	(1ULL << VIRTIO_F_VERSION_1 | 1ULL << VIRTIO_RING_F_INDIRECT_DESC |                        \
		1ULL << VIRTIO_RING_F_EVENT_IDX | 1ULL << VU_FEATURE_PROTOCOL)
#define VU_PROTOCOL_FEATURES                                                                       \
	(1ULL << VU_PROTOCOL_MQ | 1ULL << VU_PROTOCOL_REPLY_ACK | 1ULL << VU_PROTOCOL_CONFIG)

struct vu_backend;

/* How a queue that starts is to the device. */
enum vu_begin {
	VU_BEGIN_ON,      /* where it stopped, or at its beginning */
	VU_BEGIN_ANEW,    /* it ran before, and the driver has begun again: a reset, not a pause */
	VU_BEGIN_STRANGE, /* it never ran here, and the driver has used it: with another device */
};

/* The device on top. All hooks but `config` may be called at any time after vu_backend_open(). */
struct vu_device {
	uint64_t features; /* of the device; the transport's are added */
	unsigned n_queues;
	/* Fills LEN bytes of configuration space at OFFSET: 0, or -EINVAL when outside. */
	int (*config)(struct vu_backend *b, uint32_t offset, void *ret, uint32_t len);
	void (*kicked)(struct vu_backend *b, unsigned queue); /* also once when it starts */
	void (*started)(struct vu_backend *b, unsigned queue, enum vu_begin how);
	void (*stopped)(struct vu_backend *b, unsigned queue);
	/* The session is over: ERROR is 0 at end of file, else -errno; WHAT says where. */
	void (*ended)(struct vu_backend *b, int error, const char *what);
};

struct vu_queue {
	struct virtq vq;
	struct loop_source kick;
	struct vu_backend *backend; /* borrowed */
	struct vu_vring_addr addr;
	int kick_fd, call_fd, err_fd; /* owned */
	uint8_t kick_slot, call_slot, err_slot;
	uint32_t num;
	uint16_t base, stopped_at;
	bool has_addr, enabled, running, was_running;
};

struct vu_backend {
	const struct vu_device *device; /* borrowed */
	struct loop *loop;              /* borrowed */
	struct loop_source source;
	int fd; /* owned */
	uint64_t features, protocol_features;
	struct guest_mem mem;
	struct vu_mem_table table; /* what `mem` was made of */
	uint8_t region_slots[VU_WIRE_REGIONS_MAX];
	struct vu_keep *keep; /* borrowed, or NULL */
	struct vu_queue queues[VU_QUEUES_MAX];
	/* the message being received */
	uint8_t bytes[VU_WIRE_HEADER_BYTES + VU_WIRE_PAYLOAD_MAX];
	size_t have;
	int fds[VU_WIRE_FDS_MAX]; /* owned */
	size_t n_fds;
	struct vu_header header;
	/* its reply, until the message is out of the socket */
	uint8_t out[VU_WIRE_HEADER_BYTES + VU_WIRE_PAYLOAD_MAX];
	size_t out_bytes;
	bool ended;
};

/* Takes over FD, a connected stream socket. 0 or -errno. */
int vu_backend_open(
	struct vu_backend *b, struct loop *loop, const struct vu_device *device, int fd_consume);
void vu_backend_close(struct vu_backend *b);

/* Before the loop runs: takes memory that its owner can cut off (guest-mem.h). */
static inline void vu_backend_allow_shrinking(struct vu_backend *b)
{
	b->mem.may_shrink = true;
}

static inline bool vu_backend_has(const struct vu_backend *b, unsigned feature)
{
	return b->features >> feature & 1;
}

/* The queue if it runs and is not broken, else NULL; always NULL when the session is over. */
struct virtq *vu_backend_queue(struct vu_backend *b, unsigned queue);

/* Interrupts the guest if it wants that for what was pushed. */
void vu_backend_call(struct vu_backend *b, unsigned queue);

/* Kicks the eventfd FD. 0 or -errno. */
int vu_backend_notify(int fd);

/* For vu-resume.h: the parts of a ring in our memory; a queue runs on them, with KICK_FD. 0 or -errno. */
int vu_backend_translate(struct vu_queue *q, struct virtq_parts *ret);
int vu_backend_run(struct vu_queue *q, const struct virtq_parts *parts, int kick_fd_consume);
