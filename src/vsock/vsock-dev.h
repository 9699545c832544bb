/*
 * Front-end "device": a virtio-vsock device over vhost-user (virtio 1.2, §5.10).
 *
 * Queue 0 carries packets to the guest, 1 from it, 2 events (QEMU keeps that one to itself). The one event, of
 * a transport that was reset, goes to a guest whose rings say that it has used another device: after a restore, or after
 * a VMM has hung up and come back. No packet is exchanged until it has read that, or VSOCK_DEV_QUIET_USEC have passed: Linux
 * drops what it has been given before without telling us. A packet may lie in any number of descriptors, header included. Work is done in turns of
 * VSOCK_DEV_BUDGET packets and direction, so the socket side is never starved by a busy guest.
 * Every chain is finished in the turn that takes it: between turns nothing is in flight, and the
 * ring's own indices say all there is to know.
 *
 * A VMM stops the queues for a pause and for a reset of the guest, and does not say which. A pause
 * keeps its connections; after a reset the driver starts its rings anew, and then they end. But it
 * may never come: so after VSOCK_DEV_ABSENT_USEC with no queue running they end as well, and a guest
 * that was only paused for so long finds their resets.
 */
#pragma once

#include "vsock-mux.h"
#include "vu-resume.h"

#define VSOCK_DEV_BUDGET      256
#define VSOCK_DEV_ABSENT_USEC 60000000
#define VSOCK_DEV_QUIET_USEC                                                                       \
	1000000 /* most that no packet is exchanged while an event waits to be read */

struct vsock_dev;

struct vsock_dev_hooks {
	void (*broken)(struct vsock_dev *d, unsigned queue); /* the guest broke a ring's rules */
	void (*ended)(struct vsock_dev *d, int error, const char *what); /* as vu_device */
};

/* Whether the guest is to be told that its connections are gone. */
enum vsock_dev_news {
	VSOCK_DEV_NO_NEWS,
	VSOCK_DEV_OWED,
	VSOCK_DEV_TOLD, /* it has not put the event's buffer back yet, as it does when it has read it */
};

struct vsock_dev {
	struct vu_backend backend;
	struct vsock_mux *mux;               /* borrowed */
	const struct vsock_dev_hooks *hooks; /* borrowed */
	struct loop *loop;                   /* borrowed */
	struct loop_job job;
	struct loop_timer absent; /* runs while no queue does */
	bool stopped;             /* since the last time that a queue began */
	enum vsock_dev_news news;
	uint16_t event_avail;     /* of the event queue when the guest was told */
	struct loop_timer quiet;  /* runs while it has not read that */
	struct virtq_chain chain; /* the one being worked on */
};

/* Takes over FD, a connected vhost-user socket. 0 or -errno. */
int vsock_dev_open(struct vsock_dev *d, struct loop *loop, struct vsock_mux *mux,
	const struct vsock_dev_hooks *hooks, int fd_consume);

/* As vu_resume(), before the loop runs. */
int vsock_dev_resume(struct vsock_dev *d, struct vu_keep *keep);
void vsock_dev_close(struct vsock_dev *d);

/* The engine has something for the guest. */
void vsock_dev_wake(struct vsock_dev *d);
