#include "broker-wire.h"

#include <errno.h>
#include <string.h>

void broker_wire_put(uint8_t out[static BROKER_WIRE_BYTES], const struct broker_msg *m)
{
	memset(out, 0, BROKER_WIRE_BYTES);
	out[0] = m->op;
	out[1] = m->rule;
	memcpy(out + 4, &m->id, sizeof m->id);
}

int broker_wire_get(const uint8_t *bytes, size_t len, size_t n_fds, struct broker_msg *ret)
{
	struct broker_msg m;

	if (len != BROKER_WIRE_BYTES)
		return -EBADMSG;
	m = (struct broker_msg){ .op = bytes[0], .rule = bytes[1] };
	memcpy(&m.id, bytes + 4, sizeof m.id);
	if (m.op == 0 || m.op >= BROKER_OPS || bytes[2] || bytes[3])
		return -EBADMSG;
	if ((m.rule && m.op != BROKER_DIAL) || n_fds != (m.op == BROKER_DIALED))
		return -EBADMSG;
	*ret = m;
	return 0;
}
