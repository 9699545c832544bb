/* What a guest that was resumed or cloned has wrong: the time and its randomness. 0 or -errno. */
#pragma once

#include <stddef.h>
#include <stdint.h>

int guest_clock_set(uint64_t realtime_ns); /* leaves a difference up to 1 ms alone */
int guest_clock_add_entropy(const void *seed, size_t len);
