/* Kernels and modules come compressed: the format is known by its first bytes. */
#pragma once

#include <stddef.h>

/* What DATA begins with: "lz4", "zstd", "xz", "gzip", "bzip2", "lzo", or NULL: nothing known. */
const char *decompress_format(const void *data, size_t len);

/*
 * Decompresses the one stream at DATA's beginning; what follows it is ignored. *RET (heap) gets at
 * most MAX bytes: -EFBIG. -EOPNOTSUPP: this build, or uvms, does not know the format. -EBADMSG.
 */
int decompress(const void *data, size_t len, size_t max, char **ret, size_t *ret_len);
