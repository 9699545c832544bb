/* Descriptors beside bytes over a UNIX socket (SCM_RIGHTS, unix(7)). */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define FDPASS_MAX 8

/* Sends LEN ≥ 1 bytes with N ≤ FDPASS_MAX borrowed descriptors. Returns bytes sent or -errno. */
ssize_t fdpass_send(int sock, const void *data, size_t len, const int *fds, size_t n);

/*
 * Receives up to LEN bytes. Up to *N_FDS descriptors (CLOEXEC) are stored in FDS and *N_FDS is set;
 * more than asked for, or truncation, closes all of them: -EPROTO. 0 means end.
 */
ssize_t fdpass_recv(int sock, void *data, size_t len, int *fds, size_t *n_fds);

/*
 * The same, for what a peer has left behind: one that dies with something unread is told by -ECONNRESET once, before
 * the messages (SOCK_SEQPACKET) that it had sent. This looks behind that.
 */
ssize_t fdpass_recv_left(int sock, void *data, size_t len, int *fds, size_t *n_fds);

/* As fdpass_recv(), and what was received stays in the socket; the descriptors are duplicates. */
ssize_t fdpass_peek(int sock, void *data, size_t len, int *fds, size_t *n_fds);
