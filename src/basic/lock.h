/*
 * Exclusive locks that belong to an open file description: whoever inherits the descriptor holds it too, and it is
 * free exactly when the last of them is gone. They are never taken away, and a file that merely exists locks nothing.
 *
 * There are two kinds, and they do not see each other. A file whose holder is asked for has an OFD lock (fcntl(2));
 * its descriptor must be open for writing. It is on one byte far behind any content, so that a VMM may lock the
 * content of a disk that is ours (Cloud Hypervisor does, by ranges since v50). What may be a directory, or loses its name while one waits for it, has
 * flock(2): nobody can ask for that one without taking it.
 */
#pragma once

/* 0, or -EBUSY: somebody else has it. */
int lock_take(int fd);

/* Waits for it. 0 or -errno. */
int lock_wait(int fd);

/* 1: somebody else has it, 0: nobody, or -errno. Takes nothing. */
int lock_is_held(int fd);

/* The same by flock(2). -EAGAIN: it is locked, but has no name any more. */
int lock_named_take(int fd);
int lock_named_wait(int fd);
