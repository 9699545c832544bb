/*
 * UNIX sockets named relative to a directory descriptor. The address goes through /proc/self/fd, so
 * the length of the directory's own path never counts against sun_path (108 bytes, unix(7)).
 */
#pragma once

#include <sys/types.h>

/* A listening SOCK_STREAM socket NAME below DIRFD, non-blocking. Returns it, or -errno. */
int sockun_listen_at(int dirfd, const char *name, mode_t mode, int backlog);

/* A connected, non-blocking SOCK_STREAM socket. -EAGAIN: the listener's queue is full. */
int sockun_connect_at(int dirfd, const char *name);

/*
 * The same without a name: once it returns, only who has *RET_PATH_FD (O_PATH) can connect, by
 * sockun_connect_fd(). NAME is free again then; who may is said by MODE and owner of the socket, as ever.
 */
int sockun_listen_unnamed(int dirfd, const char *name, mode_t mode, int backlog, int *ret_path_fd);
int sockun_connect_fd(int path_fd);

/*
 * Connects to NAME below DIRFD, a directory of somebody else's: only if it is a socket, no link, and OWNER's.
 * -EPERM: it is something else.
 */
int sockun_connect_owned(int dirfd, const char *name, uid_t owner);

/* A connected pair; TYPE may carry SOCK_NONBLOCK, CLOEXEC is always set. */
int sockun_pair(int type, int ret_fds[static 2]);
