/*
 * Who may open a connection to which port: the one place that decides, asked by every front-end
 * before a connection exists. Today's rule is fixed: host and guest may call each other, siblings
 * nobody. The agent's port is between the supervisor and the agent, so no rule may ever open it to
 * a sibling or a forward; on it, both ends prove themselves by the incarnation's secret.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define VSOCK_PORT_AGENT 1023

enum vsock_way {
	VSOCK_GUEST_TO_HOST,
	VSOCK_HOST_TO_GUEST,
	VSOCK_SIBLING_TO_GUEST,
	VSOCK_GUEST_TO_SIBLING,
};

static inline bool vsock_policy_allows(enum vsock_way way, uint32_t port)
{
	if (port == UINT32_MAX) /* VMADDR_PORT_ANY is no port */
		return false;
	return way == VSOCK_GUEST_TO_HOST || way == VSOCK_HOST_TO_GUEST;
}
