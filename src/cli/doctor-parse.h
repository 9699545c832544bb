/* What programs and files say about themselves, read without trust. Pure. */
#pragma once

#include <stdbool.h>

/* "QEMU emulator version 7.2.22 (Debian …)": the first two numbers behind "version". */
bool doctor_parse_version(const char *line, unsigned *ret_major, unsigned *ret_minor);

/* The ids that subuid(5) TEXT gives to user NAME or number UID: the longest range, 0 when none. */
unsigned long doctor_parse_subids(const char *text, const char *name, unsigned uid);
