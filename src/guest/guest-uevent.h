/* Waiting for a device: the kernel's uevents say when to look again. */
#pragma once

/* A socket that hears the kernel's uevents, non-blocking; or -errno. */
int guest_uevent_open(void);

/*
 * Calls THERE at once and after each uevent until it returns > 0 (then 0), < 0 (passed on), or the time
 * is over (-ETIMEDOUT).
 */
int guest_uevent_wait(int (*there)(void *user), void *user, int timeout_ms);
