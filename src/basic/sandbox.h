/* What a process may do. libc only, so no system call filter. */
#pragma once

/*
 * Gives up what a device process never needs, irrevocably: no_new_privs, no capability in any set (the
 * bounding set as far as allowed), no core dump.
 * 0 or -errno; -errno leaves the process partly confined: exit then.
 */
int sandbox_drop_privileges(void);

/*
 * For a process that is not root, in a user namespace of its own: what it has survives the execve() that
 * follows (ambient set); and back, so that what it starts later inherits nothing. 0 or -errno.
 */
int sandbox_keep_capabilities(void);
int sandbox_keep_no_capabilities(void);

/*
 * A user namespace in which we stay ourselves, and what else FLAGS (CLONE_NEW…, CLONE_NEWUSER among them) say: there an
 * ordinary user may make the other kinds, too. 0 or -errno.
 */
int sandbox_enter_user_namespace(int flags);

/* The kernel's Landlock ABI (landlock(7)); 0: it has none, or it is switched off. */
int sandbox_landlock_abi(void);

/* Raises the soft descriptor limit to at least N if the hard one allows: 0, or -EMFILE. */
int sandbox_want_fds(unsigned n);
