/* At most BURST lines in each interval; the others are counted. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct ratelimit {
	uint64_t interval_usec;
	uint32_t burst;
	uint64_t since_usec;
	uint32_t n;
	uint32_t suppressed; /* since the last line that passed */
};

/* Whether a line may pass now; if so *RET_SUPPRESSED tells how many before it did not. */
static inline bool ratelimit_pass(struct ratelimit *l, uint64_t now_usec, uint32_t *ret_suppressed)
{
	if (now_usec - l->since_usec >= l->interval_usec || l->since_usec == 0) {
		l->since_usec = now_usec;
		l->n = 0;
	}
	if (l->n >= l->burst) {
		l->suppressed++;
		return false;
	}
	l->n++;
	*ret_suppressed = l->suppressed;
	l->suppressed = 0;
	return true;
}
