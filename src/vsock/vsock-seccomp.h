/* The system calls that uvms-vsockd may still make; any other kills it. */
#pragma once

/* Loads the filter for this process. Irrevocable. 0 or -errno. */
int vsock_seccomp_load(void);
