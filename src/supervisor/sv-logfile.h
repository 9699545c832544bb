/*
 * A log whose size on disk and whose write rate are bounded whatever is poured into it.
 *
 * Two segments, NAME and NAME.1, of SV_LOGFILE_SEGMENT bytes each: when the first is full it replaces
 * the second. Control bytes, and those that are no UTF-8, are written as \xNN. A token bucket (SV_LOGFILE_BURST at once, then
 * SV_LOGFILE_RATE a second) decides what is written; what is not is counted and noted in the log. Of that the last
 * SV_LOGFILE_HELD bytes are held until there is room: what is said right behind a flood may be why it was the last.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SV_LOGFILE_SEGMENT (128 * 1024)
#define SV_LOGFILE_BURST   (1024 * 1024)
#define SV_LOGFILE_RATE    (128 * 1024)
#define SV_LOGFILE_HELD    1024

struct sv_logfile {
	int dir_fd; /* borrowed */
	int fd;     /* owned */
	char name[32];
	char torn[3]; /* the beginning of a character whose rest is still to come */
	size_t n_torn;
	size_t size;
	uint64_t tokens, filled_usec;
	uint64_t dropped_bytes; /* in all */
	uint64_t gap_bytes;     /* since the last write */
	char held[SV_LOGFILE_HELD];
	size_t n_held;
};

int sv_logfile_init(struct sv_logfile *l, int dir_fd, const char *name);

/* Goes on with the present segment of NAME. */
int sv_logfile_resume(struct sv_logfile *l, int dir_fd, const char *name);
void sv_logfile_write(struct sv_logfile *l, const void *data, size_t len);

/* True: something is held, for less than 10 ms; whoever writes no more catches up then. */
bool sv_logfile_is_behind(const struct sv_logfile *l);
void sv_logfile_catch_up(struct sv_logfile *l);
void sv_logfile_finish(struct sv_logfile *l);

/* The last bytes of the log, at most MAX, from the beginning of a character on, NUL-terminated, on the heap; NULL when there is none. */
char *sv_logfile_tail(struct sv_logfile *l, size_t max);
