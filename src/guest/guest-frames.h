/* A connection that carries agent-wire frames, on the loop, with bounded buffers. */
#pragma once

#include "agent-wire.h"
#include "guest-loop.h"

/* Above this many unsent bytes nothing more is read from the peer, and bulk senders wait. */
#define GUEST_FRAMES_BACKLOG (128 * 1024)

struct guest_frames {
	struct guest_source source;
	struct guest_loop *loop; /* borrowed */
	int fd;                  /* owned */
	uint8_t *in, *out;       /* owned */
	size_t in_used;          /* bytes of the frame that was delivered last */
	size_t in_len, out_pos, out_len, out_size;
	bool paused, ending;

	/* < 0 closes the connection. The views in M are valid until it returns. */
	int (*on_message)(struct guest_frames *f, const struct agent_wire_msg *m);
	void (*on_room)(struct guest_frames *f);   /* may be NULL; the backlog has gone down */
	void (*on_closed)(struct guest_frames *f); /* the last call; finish it here */
};

int guest_frames_init(struct guest_frames *f, struct guest_loop *l, int fd_consume);
void guest_frames_finish(struct guest_frames *f);

/* Queues M and sends what the socket takes. -EINVAL, -ENOBUFS as agent_wire_encode(). */
int guest_frames_send(struct guest_frames *f, const struct agent_wire_msg *m);
bool guest_frames_has_room(const struct guest_frames *f);

/* Delivers no further message until resumed. */
void guest_frames_pause(struct guest_frames *f);

/* F may be finished when it returns. */
void guest_frames_resume(struct guest_frames *f);

/* Sends what is queued, half-closes, discards input until the peer closes too; then on_closed. */
void guest_frames_end(struct guest_frames *f);

/* Gives the descriptor away; what is left in the buffers stays readable until finish. */
int guest_frames_steal(struct guest_frames *f);
