/*
 * What a device process and the supervisor that outlives it say to each other.
 *
 * Theory of operation. A process that serves a vhost-user session can be replaced only if somebody
 * keeps what is needed for that: the descriptors that came with the session, and a page that says
 * what they are for (vu-state-wire.h). The device hands each descriptor over as soon as it has it; the
 * supervisor puts it into a numbered slot and never asks what it is. A successor is first given
 * all slots, then GO.
 *
 * One SOCK_SEQPACKET message is KEEPER_WIRE_BYTES: u8 op, u8 slot (0 where there is none), u16 0,
 * u32 cookie (0 where there is none), host order; KEEP and HANDOVER have exactly one descriptor beside them, the
 * others none. Whatever else comes ends the sender, not the receiver.
 *
 *	supervisor → device   KEEP{slot} for each slot in use, then GO; later PING{cookie}
 *	device → supervisor   KEEP{slot} (replaces what was there), DROP{slot}, UP, SERVED, PONG{cookie}
 *
 *
 * A live device can be replaced, too: its successor says WAITS, the device in service is told HANDOVER{descriptor}, a
 * channel to that successor, and ends when that has all connections (vsock-handover.h), or says STAYS and
 * goes on. Then the successor is given the slots and GO, as ever.
 *
 * UP: the session is taken over (or new), the resets of the former connections are queued. SERVED: the
 * first connection has been opened.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define KEEPER_WIRE_BYTES 8
#define KEEPER_SLOTS      48 /* two memory tables of 8, three rings with two sets of 3, and some air */
#define KEEPER_SLOT_NONE  0xff

enum keeper_op {
	KEEPER_KEEP = 1,
	KEEPER_DROP = 2,
	KEEPER_GO = 3,
	KEEPER_UP = 4,
	KEEPER_SERVED = 5,
	KEEPER_PING = 6,
	KEEPER_PONG = 7,
	KEEPER_HANDOVER = 8,
	KEEPER_STAYS = 9,
	KEEPER_WAITS = 10,
	KEEPER_OPS,
};

struct keeper_msg {
	uint8_t op, slot; /* enum keeper_op */
	uint32_t cookie;
};

void keeper_wire_put(uint8_t out[static KEEPER_WIRE_BYTES], const struct keeper_msg *m);

/* N_FDS came beside. -EBADMSG unless all of it is exactly right. */
int keeper_wire_get(const uint8_t *bytes, size_t len, size_t n_fds, struct keeper_msg *ret);
