#include "keeper-wire.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

static const struct {
	bool slot, fd, cookie;
} keeper_shapes[KEEPER_OPS] = {
	[KEEPER_KEEP] = { .slot = true, .fd = true },
	[KEEPER_DROP] = { .slot = true },
	[KEEPER_PING] = { .cookie = true },
	[KEEPER_PONG] = { .cookie = true },
	[KEEPER_HANDOVER] = { .fd = true },
};

void keeper_wire_put(uint8_t out[static KEEPER_WIRE_BYTES], const struct keeper_msg *m)
{
	memset(out, 0, KEEPER_WIRE_BYTES);
	out[0] = m->op;
	out[1] = m->slot;
	memcpy(out + 4, &m->cookie, sizeof m->cookie);
}

int keeper_wire_get(const uint8_t *bytes, size_t len, size_t n_fds, struct keeper_msg *ret)
{
	struct keeper_msg m;

	if (len != KEEPER_WIRE_BYTES)
		return -EBADMSG;
	m = (struct keeper_msg){ .op = bytes[0], .slot = bytes[1] };
	memcpy(&m.cookie, bytes + 4, sizeof m.cookie);
	if (m.op == 0 || m.op >= KEEPER_OPS || bytes[2] || bytes[3])
		return -EBADMSG;
	if (m.slot >= (keeper_shapes[m.op].slot ? KEEPER_SLOTS : 1))
		return -EBADMSG;
	if (m.cookie && !keeper_shapes[m.op].cookie)
		return -EBADMSG;
	if (n_fds != keeper_shapes[m.op].fd)
		return -EBADMSG;
	*ret = m;
	return 0;
}
