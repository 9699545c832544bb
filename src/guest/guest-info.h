/* What INFO answers: "key=value" lines about this system. */
#pragma once

#include <stddef.h>
#include <stdint.h>

void guest_info_text(char *buf, size_t size);

/* /proc/sys/kernel/random/boot_id as bytes; 0 or -errno. */
int guest_info_boot_id(uint8_t ret[static 16]);
