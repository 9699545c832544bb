/*
 * Services between VMs, by vsock ports: what a guest may call, and who may call it. Both sides must agree; what no rule
 * allows is refused.
 *
 *	connect   PORT:VM:PORT   a call of port PORT of the host (CID 2) becomes one of that port of VM
 *	accept    PORT[:VM]      VM, or any VM of the same realm, may call port PORT of this guest
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vm-name.h"

#define VM_SERVICES_MAX 32 /* of each kind, of one VM */

struct vm_connect {
	uint32_t port, peer_port;
	char peer[VM_NAME_MAX + 1];
};

struct vm_accept {
	uint32_t port;
	char peer[VM_NAME_MAX + 1]; /* "": any */
};

/* 0, or -EINVAL with *RET_REASON (static); -EOPNOTSUPP likewise: nothing that there is yet. */
int vm_connect_parse(const char *text, struct vm_connect *ret, const char **ret_reason);
int vm_accept_parse(const char *text, struct vm_accept *ret, const char **ret_reason);

/* Whether one of RULES (strv, may be NULL) lets PEER call PORT. One that cannot be parsed lets nobody. */
bool vm_accept_allows(char *const *rules, const char *peer, uint32_t port);
