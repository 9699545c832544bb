#pragma once

/* The system calls that a pump needs, and no other: what does another one is killed. 0 or -errno. */
int tap_seccomp_load(void);
