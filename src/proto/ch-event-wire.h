/*
 * The event stream of Cloud Hypervisor (--event-monitor): JSON objects over several lines, each followed by an
 * empty line. The VMM writes without waiting: what does not fit into the pipe is lost, in the middle of an
 * object too, so a text that is no event is skipped up to the next empty line.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define CH_EVENT_MAX 8192 /* bytes of one event */

struct ch_event {
	char source[32]; /* vmm, vm, virtio-device, guest; "": not an event */
	char event[48];
	char id[64]; /* of the device, or ""; of source guest: what panicked */
};

/* How many bytes were taken (*RET is set then), 0: more is needed, -EMSGSIZE: longer than CH_EVENT_MAX. */
ssize_t ch_event_next(const char *bytes, size_t len, struct ch_event *ret);
