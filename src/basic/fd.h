/* Descriptors: whole reads and writes, flags. All functions return 0 (or a count) or -errno. */
#pragma once

#include <stddef.h>
#include <sys/types.h>

/* Closes FD if it is one; always returns -EBADF, so `fd = fd_close(fd)` leaves the idle value. */
int fd_close(int fd);

/* Writes all LEN bytes, retrying on EINTR and waiting in poll() on EAGAIN. */
int fd_write_all(int fd, const void *data, size_t len);

/* Reads until LEN bytes are there or the end; returns the count. Waits in poll() on EAGAIN. */
ssize_t fd_read_full(int fd, void *data, size_t len);

int fd_set_nonblock(int fd, int on);
int fd_set_cloexec(int fd, int on);

/* Writes at most 20 + LEN bytes "/proc/self/fd/N[/NAME]" to BUF: a short path for a long place. */
#define FD_PATH_MAX 64
const char *fd_path(int fd, char buf[static FD_PATH_MAX]);

/* A sealed-later memfd named NAME, CLOEXEC. Returns the descriptor. */
int fd_memfd(const char *name);
