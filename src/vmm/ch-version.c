#include "ch-version.h"

#include <assert.h>
#include <string.h>

#include "cleanup.h"

static const struct {
	const char *name;
	uint32_t since;
} features[] = {
	[CH_FEATURE_RANGE_LOCKS] = { "volumes", 50 },
	[CH_FEATURE_NO_SHUTDOWN] = { "a guest's power-off told from a death of the VMM", 52 },
	[CH_FEATURE_VSOCK_DEVICE] = { "vsock by uvms's own device", 52 },
	[CH_FEATURE_ON_DEMAND] = { "restores with memory that is read on demand", 52 },
	[CH_FEATURE_DRAIN] = { "a snapshot with volumes", 53 },
	[CH_FEATURE_SYSTEM_UUID] = { "its identity by system_uuid", 53 },
};
static_assert(ARRAY_SIZE(features) == CH_FEATURES, "every feature has a version");

uint32_t ch_version_parse(const char *text)
{
	const char *p = text + strcspn(text, "0123456789");
	uint32_t n = 0;

	for (; *p >= '0' && *p <= '9' && n < 100000; p++)
		n = n * 10 + (uint32_t)(*p - '0');
	return *p == '.' ? n : 0;
}

bool ch_version_has(uint32_t version, enum ch_feature f)
{
	return version >= features[f].since;
}

uint32_t ch_version_of(enum ch_feature f)
{
	return features[f].since;
}

const char *ch_version_feature_name(enum ch_feature f)
{
	return features[f].name;
}
