/*
 * Frames between a link and passt, where the VMM takes a TAP and not passt's socket.
 *
 * Theory of operation. The link is a packet socket on the kernel's side of the TAP: one frame a message. passt
 * speaks a stream, four bytes of length (big endian) before each frame (passt(1), QEMU's -netdev stream). The
 * guest is hostile, and so is passt: a length that no frame can have ends the process, and nothing that is
 * kept grows. What the link does not take at once is dropped, as on any wire; what passt does not take stays in
 * the kernel's queue of the packet socket, which drops when it is full. Nothing is waited for but descriptors.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "loop.h"

#define TAP_FRAME_MIN   14    /* an Ethernet header */
#define TAP_FRAME_MAX   65549 /* with the largest packet behind it */
#define TAP_PUMP_BURST  64    /* frames from the link before anything else is looked at */
#define TAP_PUMP_BUFFER (2 * (TAP_FRAME_MAX + 4))

struct tap_pump {
	struct loop loop;
	struct loop_source link, stream;
	int link_fd, stream_fd; /* borrowed */
	uint32_t stream_events;
	size_t out_len, out_done; /* of the frame that passt has not taken whole */
	size_t in_len;
	uint8_t out[TAP_FRAME_MAX + 4];
	uint8_t in[TAP_PUMP_BUFFER];
};

/* Both descriptors are non-blocking and stay the caller's. 0 or -errno. */
int tap_pump_init(struct tap_pump *p, int link_fd, int stream_fd);

/* Until the stream ends: 0, -EBADMSG: passt speaks nonsense, or -errno. */
int tap_pump_run(struct tap_pump *p);
void tap_pump_finish(struct tap_pump *p);
