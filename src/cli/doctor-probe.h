/* Trying things where they do no harm. */
#pragma once

#include <stddef.h>

/* FN's result (0 or -errno) from a child process; what it changed of itself is gone with it. */
int doctor_probe_in_child(int (*fn)(void));

/*
 * The first line that `PROGRAM ARGUMENT` prints, on the heap. -EIO: it failed or printed nothing;
 * -ETIMEDOUT: nothing came within 5 s.
 */
int doctor_probe_line(const char *program, const char *argument, char **ret);
