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

/* The same, and what was received stays in the socket; the descriptors are duplicates. */
ssize_t fdpass_peek(int sock, void *data, size_t len, int *fds, size_t *n_fds);
