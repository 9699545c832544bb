/*
 * The device's end of what outlives it: the page of state and the keeper's channel (keeper-wire.h).
 *
 * Order. A descriptor is handed over first, then the state that names its slot is committed, then the
 * slots that no state names any more are dropped. A death at any point leaves a state all of whose
 * slots are filled, and perhaps some that nobody names: a successor drops those.
 *
 * An answer is a request that is taken and a reply that is sent, and a death may come anywhere in between. Both
 * are done by calls (recvmmsg, sendmmsg) that store into the page what they did, before they come back from the
 * kernel: a signal that kills can come before or after such a call, but not between its deed and its note. So a
 * successor knows exactly what is left to do.
 *
 * Nothing here blocks a running device. When the keeper does not take a descriptor the session goes on; only
 * it can no longer be taken over, and a successor finds that in the state. All functions but open and
 * receive take NULL for K: nobody keeps anything.
 */
#pragma once

#include "loop.h"
#include "vu-state-wire.h"

struct vu_keep {
	int fd;                /* owned: the channel */
	uint8_t *page;         /* owned mapping */
	uint64_t used;         /* slots in use */
	uint64_t dropped;      /* of these, no longer after the next commit */
	int fds[KEEPER_SLOTS]; /* owned: what a former process left, until it is claimed */
	struct loop *loop;     /* borrowed */
	struct loop_source source;
	/* The keeper wants a live handover by CHANNEL, which the hook takes over. NULL: never. */
	void (*handover)(struct vu_keep *k, int channel_consume);
	void (*failed)(struct vu_keep *k,
		int error); /* the channel: nothing is heard of the keeper any more */
};

/* Takes over CHANNEL; maps the page of STATE_FD (borrowed). 0 or -errno. */
int vu_keep_open(struct vu_keep *k, int channel_consume, int state_fd);
void vu_keep_close(struct vu_keep *k);

/* Reads, blocking, what is kept for us, up to GO. 0 or -errno. */
int vu_keep_receive(struct vu_keep *k);

/* 1 with the state; 0: there is none, the session is new; -ESTALE: busy; -EBADMSG: not to be used. */
int vu_keep_load(const struct vu_keep *k, struct vu_state *ret);

/* The descriptor in SLOT, now the caller's, or -EBADF. */
int vu_keep_claim(struct vu_keep *k, uint8_t slot);

/* Drops whatever was not claimed. */
void vu_keep_drop_rest(struct vu_keep *k);

/* Answers PING and HANDOVER from now on. 0 or -errno. */
int vu_keep_watch(struct vu_keep *k, struct loop *loop);

/* Hands FD (borrowed) over. Its slot, or KEEPER_SLOT_NONE when the keeper does not take it. */
uint8_t vu_keep_fd(struct vu_keep *k, int fd);

/* SLOT (or KEEPER_SLOT_NONE) is no longer in the state that is committed next. */
void vu_keep_drop(struct vu_keep *k, uint8_t slot);
void vu_keep_commit(struct vu_keep *k, const struct vu_state *s);

/* From here on, or no longer, a death cannot be made good: a message is being put together. */
void vu_keep_pieces(struct vu_keep *k, bool pieces);

/*
 * Takes the LEN bytes that were peeked out of SOCK and sends REPLY. HAS_FDS: descriptors were beside them. 0;
 * -EPROTO: it was not as peeked; -errno. K is not NULL.
 */
int vu_keep_answer(
	struct vu_keep *k, int sock, size_t len, bool has_fds, const void *reply, size_t reply_len);

/* Does what a former process has left of that. 0, or -errno: SOCK takes no reply, or the page is of no use. */
int vu_keep_finish_answer(struct vu_keep *k, int sock);

/* KEEPER_UP, KEEPER_SERVED, KEEPER_STAYS or KEEPER_WAITS; 0 or -errno. */
int vu_keep_tell(struct vu_keep *k, enum keeper_op op);
