#include "vm-publish.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "parse.h"
#include "str.h"

/* Cuts the address off the front of TEXT; what is left is "HOST:GUEST". */
static int publish_address(char *text, struct vm_publish *p, char **ret_rest)
{
	char *end, *first = text, buf[sizeof(struct in6_addr)];
	int family = AF_INET;

	if (*text == '[') {
		first = text + 1;
		end = strchr(first, ']');
		if (!end || end[1] != ':')
			return -EINVAL;
		*end++ = 0;
		family = AF_INET6;
	} else {
		end = strchr(text, ':');
		if (!end || !strchr(end + 1, ':')) {
			snprintf(p->address, sizeof p->address, "%s", VM_PUBLISH_DEFAULT);
			*ret_rest = text;
			return 0;
		}
	}
	*end = 0;
	if (inet_pton(family, first, buf) != 1)
		return -EINVAL;
	snprintf(p->address, sizeof p->address, "%.*s", (int)sizeof p->address - 1, first);
	*ret_rest = end + 1;
	return 0;
}

int vm_publish_parse(const char *text, struct vm_publish *ret)
{
	char copy[128], *slash, *rest, *colon;
	struct vm_publish p = { .udp = false };

	if (snprintf(copy, sizeof copy, "%s", text) >= (int)sizeof copy)
		return -EINVAL;
	slash = strchr(copy, '/');
	if (slash) {
		p.udp = str_eq(slash, "/udp");
		if (!p.udp && !str_eq(slash, "/tcp"))
			return -EINVAL;
		*slash = 0;
	}
	if (publish_address(copy, &p, &rest) < 0)
		return -EINVAL;
	colon = strchr(rest, ':');
	if (!colon)
		return -EINVAL;
	*colon = 0;
	if (parse_port(rest, &p.host) < 0 || parse_port(colon + 1, &p.guest) < 0)
		return -EINVAL;
	*ret = p;
	return 0;
}
