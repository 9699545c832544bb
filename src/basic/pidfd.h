/* A process is a descriptor (pidfd_open(2)), never a number that may be used again. */
#pragma once

#include <signal.h>
#include <sys/types.h>

int pidfd_open_pid(pid_t pid);          /* descriptor (CLOEXEC) or -errno */
int pidfd_signal(int pidfd, int signo); /* 0, -ESRCH when it is gone */

/* Reaps an ended child without blocking: 1 and *RET filled, 0 while it runs, or -errno. */
int pidfd_reap(int pidfd, siginfo_t *ret);

/*
 * A child was stopped (CLD_STOPPED) or went on (CLD_CONTINUED) since the last look: 1 and *RET filled, 0:
 * nothing new, or -errno. Its end is left for pidfd_reap().
 */
int pidfd_pause(int pidfd, siginfo_t *ret);
