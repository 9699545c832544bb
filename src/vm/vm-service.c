#include "vm-service.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "parse.h"
#include "str.h"

#define SERVICE_TEXT_MAX   128
#define SERVICE_AGENT_PORT 1023 /* agent-wire.h: nobody's but the agent's */

/* VMADDR_PORT_ANY is no port. */
static int parse_service_port(const char *text, uint32_t *ret, const char **ret_reason)
{
	*ret_reason = "a port is 1 to 4294967294";
	if (parse_u32(text, UINT32_MAX - 1, ret) < 0 || *ret == 0)
		return -EINVAL;
	*ret_reason = "port 1023 is the agent's own";
	return *ret == SERVICE_AGENT_PORT ? -EINVAL : 0;
}

static int parse_peer(const char *text, char ret[static VM_NAME_MAX + 1], const char **ret_reason)
{
	int r = vm_name_check(text, ret_reason);

	if (r == 0)
		snprintf(ret, VM_NAME_MAX + 1, "%s", text);
	return r;
}

static int take_copy(const char *text, char copy[static SERVICE_TEXT_MAX], const char **ret_reason)
{
	*ret_reason = "it is too long";
	return snprintf(copy, SERVICE_TEXT_MAX, "%s", text) < SERVICE_TEXT_MAX ? 0 : -EINVAL;
}

int vm_connect_parse(const char *text, struct vm_connect *ret, const char **ret_reason)
{
	struct vm_connect c = { 0 };
	char copy[SERVICE_TEXT_MAX], *peer, *port;
	int r = take_copy(text, copy, ret_reason);

	if (r < 0)
		return r;
	peer = strchr(copy, ':');
	if (peer && str_has_prefix(peer, ":unix:")) {
		*ret_reason = "a socket of the host: not supported yet";
		return -EOPNOTSUPP;
	}
	port = peer ? strchr(peer + 1, ':') : NULL;
	if (!port) {
		*ret_reason = "it must be PORT:VM:PORT";
		return -EINVAL;
	}
	*peer++ = *port++ = 0;
	r = parse_service_port(copy, &c.port, ret_reason);
	if (r == 0)
		r = parse_service_port(port, &c.peer_port, ret_reason);
	if (r == 0)
		r = parse_peer(peer, c.peer, ret_reason);
	if (r == 0)
		*ret = c;
	return r;
}

int vm_accept_parse(const char *text, struct vm_accept *ret, const char **ret_reason)
{
	struct vm_accept a = { 0 };
	char copy[SERVICE_TEXT_MAX], *peer;
	int r = take_copy(text, copy, ret_reason);

	if (r < 0)
		return r;
	peer = strchr(copy, ':');
	if (peer)
		*peer++ = 0;
	r = parse_service_port(copy, &a.port, ret_reason);
	if (r == 0 && peer)
		r = parse_peer(peer, a.peer, ret_reason);
	if (r == 0)
		*ret = a;
	return r;
}

bool vm_accept_allows(char *const *rules, const char *peer, uint32_t port)
{
	const char *reason;

	for (; rules && *rules; rules++) {
		struct vm_accept a;

		if (vm_accept_parse(*rules, &a, &reason) == 0 && a.port == port &&
			(!*a.peer || str_eq(a.peer, peer)))
			return true;
	}
	return false;
}
