/*
 * Processes that are stopped (SIGSTOP), which is worse than dead: they answer nothing and free nothing.
 *
 * The kernel tells a parent at once (SIGCHLD, WSTOPPED), so there is no heartbeat and nothing wakes up
 * while all is well. A stop is logged and shown in the status (`stopped`). After SV_WATCH_GRACE_USEC the
 * process gets SIGCONT: whoever stopped it on purpose has had his look. At the SV_WATCH_STOPS-th stop within
 * SV_WATCH_WINDOW_USEC it is given up: vsockd is killed and replaced; the VMM and the namespace's
 * init are the end of the VM. While the VM is being stopped, a stopped VMM is left to the ladder's deadlines.
 */
#pragma once

#include <stdint.h>

#define SV_WATCH_GRACE_USEC  (UINT64_C(1) * 1000000)
#define SV_WATCH_STOPS       3
#define SV_WATCH_WINDOW_USEC (UINT64_C(10) * 1000000)

struct sv;

/* SIGCHLD is blocked. 0 or -errno. */
int sv_watch_begin(struct sv *sv);
