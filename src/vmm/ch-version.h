/*
 * What a version of Cloud Hypervisor can do. By number alone: its API ignores unknown JSON fields, so trying
 * proves nothing. Source: release notes and the sources of v40 to v53.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CH_VERSION_MIN  48 /* the first one whose errors are a JSON array */
#define CH_VERSION_BEST 53

enum ch_feature {
	CH_FEATURE_RANGE_LOCKS, /* locks a disk's content, not the whole file: beside our own lock */
	CH_FEATURE_NO_SHUTDOWN, /* --no-shutdown: a guest's power-off is told from a death of the VMM */
	CH_FEATURE_VSOCK_DEVICE, /* generic_vhost_user */
	CH_FEATURE_ON_DEMAND,    /* vm.restore with userfaultfd */
	CH_FEATURE_DRAIN,        /* a pause waits for what the disks have under way */
	CH_FEATURE_SYSTEM_UUID, /* platform.system_uuid, system_serial_number; uuid, serial_number before */
	CH_FEATURES,
};

/* The number in "cloud-hypervisor v53.0.0", "v53.0.0", "53.0.0-dirty"; 0: none. */
uint32_t ch_version_parse(const char *text);
bool ch_version_has(uint32_t version, enum ch_feature f);

/* The first version that has F, and its name for people. */
uint32_t ch_version_of(enum ch_feature f);
const char *ch_version_feature_name(enum ch_feature f);
