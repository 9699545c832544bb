/*
 * SHA-256 by libcrypto, which is loaded for the time of a digest only: its relocations alone are 400 KiB of
 * memory in every process that is linked with it, and a supervisor hashes hardly ever.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES 32

struct sha256 {
	void *library, *ctx; /* owned */
};

/* -ENOPKG: there is no libcrypto. */
int sha256_begin(struct sha256 *ret);
int sha256_update(struct sha256 *s, const void *data, size_t len);
int sha256_end(struct sha256 *s, uint8_t ret[static SHA256_BYTES]);
void sha256_finish(struct sha256 *s);
