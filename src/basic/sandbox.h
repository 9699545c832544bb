/* Gives up what a device process never needs. Irrevocable; libc only, so no system call filter. */
#pragma once

/*
 * no_new_privs, no capability in any set (the bounding set as far as allowed), no core dump.
 * 0 or -errno; -errno leaves the process partly confined: exit then.
 */
int sandbox_drop_privileges(void);

/* Raises the soft descriptor limit to at least N if the hard one allows: 0, or -EMFILE. */
int sandbox_want_fds(unsigned n);
