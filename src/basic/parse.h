/* Text to numbers, strictly: no sign, no white space, no rest. 0, -EINVAL or -ERANGE. */
#pragma once

#include <stdint.h>

int parse_u64(const char *s, uint64_t max, uint64_t *ret);
int parse_u32(const char *s, uint32_t max, uint32_t *ret);

/* "512M", "1G", "64K", "1T", plain bytes; binary multiples. */
int parse_size(const char *s, uint64_t *ret_bytes);

/* "90", "90s", "500ms", "2min", "1h"; plain numbers are seconds; "infinity" is UINT64_MAX. */
int parse_duration(const char *s, uint64_t *ret_usec);

/* 1 … 65535 */
int parse_port(const char *s, uint32_t *ret);
