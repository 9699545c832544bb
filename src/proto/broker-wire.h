/*
 * What uvms-broker and the supervisor say to each other: SOCK_SEQPACKET messages of BROKER_WIRE_BYTES, u8 op, u8 rule,
 * u16 0, u32 id, host order.
 *
 *	broker → supervisor   DIAL{rule, id}: the guest has called the service RULE; ID is the broker's
 *	supervisor → broker   DIALED{id} with one descriptor, which leads there; REFUSED{id}
 *
 * Whatever else comes ends the sender, not the receiver.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define BROKER_WIRE_BYTES 8

enum broker_op {
	BROKER_DIAL = 1,
	BROKER_DIALED = 2,
	BROKER_REFUSED = 3,
	BROKER_OPS,
};

struct broker_msg {
	uint8_t op;   /* enum broker_op */
	uint8_t rule; /* of DIAL; else 0 */
	uint32_t id;
};

void broker_wire_put(uint8_t out[static BROKER_WIRE_BYTES], const struct broker_msg *m);

/* N_FDS came beside. -EBADMSG unless all of it is exactly right. */
int broker_wire_get(const uint8_t *bytes, size_t len, size_t n_fds, struct broker_msg *ret);
