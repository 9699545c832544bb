/* Disks by the serial that the host gave them. */
#pragma once

#include "wire.h"

#define GUEST_DISK_PATH_MAX 64

/* Waits for the disk. Writes "/dev/NAME" to RET. 0, -ETIMEDOUT, -errno. */
int guest_disk_find(
	const struct wire_str *serial, int timeout_ms, char ret[static GUEST_DISK_PATH_MAX]);
