/* Bytes, rate and the present name, on a terminal on stderr; nothing anywhere else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct copy_progress {
	bool shown, drawn;
	uint64_t bytes, start_usec, next_usec;
};

void copy_progress_init(struct copy_progress *p, bool quiet);
void copy_progress_add(struct copy_progress *p, uint64_t bytes, const char *name);
void copy_progress_clear(struct copy_progress *p); /* before other lines, and at the end */
