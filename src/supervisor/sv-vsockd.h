/*
 * uvms-vsockd, and what outlives it.
 *
 * Theory of operation. QEMU's device cannot reconnect, so a new vsockd has to go on with the session of
 * the old one. We keep what it needs: the vhost-user socket and the listening socket (both are ours as much
 * as its own), two memfds that it writes and we never read (connections, state of the session), and in numbered
 * slots the descriptors that came by the session, as vsockd hands them over on the keeper's channel
 * (keeper-wire.h). When it dies, what still lies in that channel is taken, and the next one is started with
 * all of it. Plain numbers and descriptors, so that a supervisor can hand them to another.
 *
 * Trust: vsockd may have fallen to its guest. What comes by the channel is bounded in kind, number (slots) and
 * rate; anything else ends that vsockd. Guest memory is kept as a descriptor and never mapped here.
 *
 * A vsockd that is silent without being stopped is found when it is used: sv_vsockd_ping() asks it, and
 * no answer within SV_VSOCKD_PONG_USEC is its end, and the start of the next.
 *
 * Limits: SV_VSOCKD_DEATHS of them within SV_VSOCKD_WINDOW_USEC, and SV_VSOCKD_EARLY that never
 * opened a connection: one more is the end of the VM, so that there is no endless loop.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SV_VSOCKD_PONG_USEC   (UINT64_C(500) * 1000)
#define SV_VSOCKD_WINDOW_USEC (UINT64_C(10) * 1000000)
#define SV_VSOCKD_EARLY       5
#define SV_VSOCKD_DEATHS      100
#define SV_VSOCKD_MESSAGES    4096 /* from one vsockd within the window */

/* Exit status: the session cannot be taken over (uvms-vsockd(8)). */
#define SV_VSOCKD_EXIT_LOST 3

/* Exit status: its successor has all connections. */
#define SV_VSOCKD_EXIT_HANDED_OVER 4

struct sv;
struct sv_child;

/* Idle values, so that every other function may be called. */
void sv_vsockd_init(struct sv *sv);

/* The memfds; the sockets are the caller's to make. 0 or -errno. */
int sv_vsockd_prepare(struct sv *sv);

/* One that an earlier image of this process started: listens to its channel. 0 or -errno. */
int sv_vsockd_resume(struct sv *sv);

/* Starts one with all that is kept. 0 or -errno. */
int sv_vsockd_start(struct sv *sv);

/*
 * It has ended (CAUSE, may be NULL): starts the next. 0; 1 when that is of no use, as the VMM or the namespace has
 * ended too; -errno when it cannot be, and the end is blamed on that.
 */
int sv_vsockd_replace(struct sv *sv, const char *cause);

/* It has ended, and its session with it: nothing of it is kept. Another one may be started with another device_fd. */
void sv_vsockd_forget(struct sv *sv);

/* For a live replacement (sv-handover): the process C, with its end of a channel and one to the process in service. */
int sv_vsockd_spawn(struct sv *sv, struct sv_child *c, int keeper_fd, int from_fd);

/* What it has said before its end; and the next one, running already, is ours now, and is given all. 0 or -errno. */
void sv_vsockd_drain(struct sv *sv);
int sv_vsockd_adopt(struct sv *sv, int keeper_fd_consume);

/* OP with FD (borrowed). 0 or -errno. */
int sv_vsockd_tell(struct sv *sv, int op, int fd);

/*
 * The guest has given its device up: ends vsockd with its session. Callers wait in the queue of the listening socket
 * until there is another one, with a session of its own; the VMM's end of that goes to the caller. 0 or -errno.
 */
void sv_vsockd_retire(struct sv *sv);
int sv_vsockd_renew(struct sv *sv, int *ret_vmm_fd);

/* Asks it whether it lives; what follows comes by itself. */
void sv_vsockd_ping(struct sv *sv);

/* Ends it, and lets go of what was kept of its session. */
void sv_vsockd_finish(struct sv *sv);

/* Lets go of sockets and memfds, too. */
void sv_vsockd_release(struct sv *sv);

/* Whether the present one was started within the last second. */
bool sv_vsockd_is_young(const struct sv *sv);
