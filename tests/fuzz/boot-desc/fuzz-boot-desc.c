/* What decodes must encode to the same bytes; nothing may read outside the input. */
#include "boot-desc.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t again[BOOT_DESC_MAX];
	static struct boot_desc d;

	if (boot_desc_decode(data, size, &d) < 0)
		return 0;
	assert(boot_desc_encode(&d, again, sizeof again) == (ssize_t)size);
	assert(memcmp(again, data, size) == 0);
	return 0;
}
