/* The system calls that uvms-broker may still make; any other kills it. */
#pragma once

/* Loads the filter for this process. Irrevocable. 0 or -errno. */
int broker_seccomp_load(void);
