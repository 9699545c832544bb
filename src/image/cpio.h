/* cpio archives of the "newc" kind (Linux Documentation/driver-api/early-userspace/buffer-format). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct cpio;

/* Appends to FD (borrowed) from its present offset, which must be a multiple of 4. */
int cpio_create(int fd, struct cpio **ret);

/* Names are relative, without "./"; owners are root, times 0: equal input gives equal bytes. */
int cpio_dir(struct cpio *c, const char *name, mode_t mode);
int cpio_file(struct cpio *c, const char *name, mode_t mode, const void *data, size_t len);
int cpio_file_from(struct cpio *c, const char *name, mode_t mode, int fd);
int cpio_node(struct cpio *c, const char *name, mode_t mode, unsigned major, unsigned minor);

/* Writes the trailer and pads to 512 bytes. 0 or the first error of all. */
int cpio_finish(struct cpio *c);
void cpio_destroy(struct cpio *c);
