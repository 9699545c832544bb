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

/* A connected pair; TYPE may carry SOCK_NONBLOCK, CLOEXEC is always set. */
int sockun_pair(int type, int ret_fds[static 2]);
