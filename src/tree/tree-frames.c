#include "tree-frames.h"

#include "fd.h"

#include <errno.h>
#include <sys/socket.h>

#define SMALL_MAX (AGENT_WIRE_HEADER + AGENT_WIRE_PATH_MAX + 64)

/* Never more than the frame needs: nothing is ever moved. */
static size_t missing(const struct tree_frames *f)
{
	uint32_t length;

	if (f->have < AGENT_WIRE_HEADER)
		return AGENT_WIRE_HEADER - f->have;
	length = (uint32_t)f->buf[0] | (uint32_t)f->buf[1] << 8 | (uint32_t)f->buf[2] << 16 |
		 (uint32_t)f->buf[3] << 24;
	if (length > AGENT_WIRE_PAYLOAD_MAX)
		return 0; /* the decoder refuses it */
	return AGENT_WIRE_HEADER + (size_t)length - f->have;
}

int tree_frames_read(struct tree_frames *f, struct agent_wire_msg *ret)
{
	size_t want;
	ssize_t n;

	if (f->given)
		f->have = 0;
	f->given = false;
	while ((want = missing(f)) > 0) {
		n = recv(f->fd, f->buf + f->have, want, f->flags);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ECONNRESET;
		f->have += (size_t)n;
	}
	f->given = true;
	return agent_wire_decode(f->buf, f->have, ret) > 0 ? 0 : -EBADMSG;
}

int tree_frames_send(int fd, const struct agent_wire_msg *m)
{
	uint8_t frame[SMALL_MAX];
	ssize_t n = agent_wire_encode(m, frame, sizeof frame);

	return n < 0 ? (int)n : fd_write_all(fd, frame, (size_t)n);
}
