/* What the verbs of images and kernels share. */
#pragma once

#include <stdint.h>

struct store;

/* The store of this run; exits with a message when it cannot be used. */
struct store *cli_store(void);

/* "uvms: LINE" on stderr. */
void cli_store_say(const char *line);

/* Says why DOING ("image x cannot be built") failed; ERROR as of image/. The exit code. */
int cli_store_fail(int error, const char *reason, const char *next, const char *doing);

/* "12.0 MiB" on the heap. */
char *cli_store_size(uint64_t bytes);
