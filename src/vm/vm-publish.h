/* A published port, "[ADDR:]HOST:GUEST[/tcp|/udp]": a port of the host that leads into the guest. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VM_PUBLISH_MAX     64 /* ports of one VM */
#define VM_PUBLISH_DEFAULT "127.0.0.1"

struct vm_publish {
	char address[64]; /* textual, of IPv4 or IPv6 (without brackets) */
	uint32_t host, guest;
	bool udp;
};

/* 0, or -EINVAL. An address of IPv6 stands in brackets; without one it is VM_PUBLISH_DEFAULT. */
int vm_publish_parse(const char *text, struct vm_publish *ret);
