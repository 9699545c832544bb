/*
 * The guest's serial port: always drained, logged within bounds, and lent to `uvms console`.
 *
 * Raw bytes go to at most SV_CONSOLE_CLIENTS clients, each a socket that loses bytes when its reader
 * is slow; what a client types goes to the guest as long as the VMM takes it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct sv;
struct sv_console;

#define SV_CONSOLE_CLIENTS 4

/* FD, our end of the VMM's console socket, is taken over whatever is returned. */
int sv_console_create_consume(struct sv *sv, int fd, struct sv_console **ret);

/* What goes on in the next image of this process; descriptors are borrowed. */
struct sv_console_saved {
	int fd;
	int clients[SV_CONSOLE_CLIENTS]; /* -EBADF: none */
	uint64_t dropped_bytes, gap_bytes;
};

void sv_console_save(const struct sv_console *c, struct sv_console_saved *ret);

/* The descriptors are taken over whatever is returned. */
int sv_console_resume_consume(
	struct sv *sv, const struct sv_console_saved *saved, struct sv_console **ret);

/* A descriptor for a new client (the caller's), or -EBUSY. */
int sv_console_open(struct sv_console *c);

/* Whether the last lines are a Linux kernel's panic: for guests that have no driver to say so. */
bool sv_console_shows_panic(struct sv_console *c);

/* The last lines on the heap, or NULL. */
char *sv_console_tail(struct sv_console *c);
void sv_console_destroy(struct sv_console *c);
