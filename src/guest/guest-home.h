/*
 * The call home: the guest proves itself to the host by the secret, learns the time, gets
 * randomness, and (stage AGENT) keeps the connection as the control channel, dialling again when it
 * is lost.
 */
#pragma once

#include "guest-frames.h"
#include "guest-transport.h"

struct guest_home {
	struct guest_loop *loop;                 /* borrowed */
	const struct guest_transport *transport; /* borrowed */
	const uint8_t *secret;                   /* borrowed; AGENT_WIRE_SECRET bytes */
	bool leave_clock;                        /* tests: touch neither time nor randomness */
	void (*welcomed)(void *user);            /* each time */
	int (*stop)(void *user, uint8_t mode, uint32_t deadline_ms); /* 0 or -errno */
	/* guest_home_answer() follows; M is MOUNT or UNMOUNT */
	void (*network)(void *user, const struct boot_desc_network *n);
	void (*mount)(void *user, const struct agent_wire_msg *m);
	/* 0: guest_home_frozen() follows; -errno. And THAW: 0 or -errno. */
	int (*freeze)(void *user);
	int (*thaw)(void *user);
	void (*closed)(void *user); /* after guest_home_end(), once */
	void *user;                 /* borrowed */

	struct guest_frames frames;
	struct guest_source dialling;
	struct guest_timer timer;
	int fd; /* owned; while dialling */
	bool connected, is_welcome, is_ending;
	uint64_t retry_ms;
	uint64_t lost_usec;    /* when a channel that stood was lost last; 0: never */
	uint64_t welcome_usec; /* when the last one came to stand */
	uint8_t ready_state;   /* 0: not yet; sent again after a lost connection */
	char ready_text[AGENT_WIRE_TEXT_MAX + 1];
};

/* The fields above the gap are the caller's. Dials, for ever. */
void guest_home_start(struct guest_home *h);
void guest_home_finish(struct guest_home *h);

void guest_home_ready(struct guest_home *h, enum agent_wire_ready state, const char *text);
void guest_home_send(
	struct guest_home *h, const struct agent_wire_msg *m); /* lost when not connected */

/* What REQUEST (NETWORK, MOUNT, UNMOUNT) asked for is done: ERROR is 0 or a positive errno. */
void guest_home_answer(struct guest_home *h, uint8_t request, int error);

/* The answer to FREEZE: 0 or -errno. Lost when not connected. */
void guest_home_frozen(struct guest_home *h, int error);

/* Half-closes; CLOSED is called when the host has seen all of it, or after 1 s. No dialling again. */
void guest_home_end(struct guest_home *h);

/* Stage INIT, blocking: HELLO, WELCOME, clock, entropy. 0 or -errno. */
int guest_home_call_init(const struct guest_transport *t, const uint8_t *secret, int timeout_ms);
