/*
 * virtiofsd(1), one for each directory that is shared (sv-share).
 *
 * Theory of operation. It accepts one connection on a socket that is ours, and sees nothing of the host but the
 * directory: it makes namespaces of its own and turns its root into it. For root it keeps the right to act as every
 * owner of a file there, but not to make device nodes or to give files capabilities; for others it has no right that the caller has not.
 *
 * The directory was opened when it was attached, and that one is served, whatever its name leads to later. Both
 * kinds of virtiofsd mount a /proc of their own before they look at their source, so that it cannot be
 * /proc/self/fd/N: a helper (uvms-supervisor --share) mounts it on an empty directory of the incarnation, in a mount
 * namespace that nobody else sees, and becomes virtiofsd.
 *
 * What serves is a child of the child that we started (or further down), in a PID namespace of its own: nobody tells us
 * that somebody stopped it. Therefore sv_virtiofsd_wake() lets it go on, where it would matter.
 */
#pragma once

struct sv;
struct sv_child;
struct sv_share;

/* Begins to ask it for its version: what it says comes to S's child, and its end to child.ended. 0 or -errno. */
int sv_virtiofsd_ask(struct sv_share *s);

/* After that end: s->which. -EOPNOTSUPP with *RET_CAUSE (heap) and *RET_NEXT (static): it is of no use here. */
int sv_virtiofsd_told(struct sv_share *s, char **ret_cause, const char **ret_next);

/*
 * Starts it. *RET_FD: a connection to it for the VMM, or -EBADF with a VMM that dials: then s->listen_fd, and
 * sv_virtiofsd_socket() below the incarnation's directory. 0 or -errno.
 */
int sv_virtiofsd_start(struct sv *sv, struct sv_share *s, int *ret_fd);

/* Another one, after it ended, for a VMM that dials. 0; -EAGAIN: too often; -errno. */
int sv_virtiofsd_again(struct sv *sv, struct sv_share *s);

/* Its name (heap); NULL: out of memory. */
char *sv_virtiofsd_socket(const struct sv *sv, const struct sv_share *s);

/* It and what belongs to it. */
void sv_virtiofsd_stop(struct sv *sv, struct sv_share *s);

/* There is none any more: a VMM that dials, now or later, is hung up on. */
void sv_virtiofsd_hang_up(struct sv *sv, struct sv_share *s);

/* SIGCONT to what serves, and to what waits for that. */
void sv_virtiofsd_wake(const struct sv_child *c);

/*
 * The helper: its working directory is shared, descriptor 3 is the socket, HOW is "KIND:PROGRAM", and PLACE an empty
 * directory. Comes back when it failed.
 */
int sv_virtiofsd_become(const char *how, const char *place);
