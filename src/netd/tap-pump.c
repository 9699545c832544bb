#include "tap-pump.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "list.h"

static void pump_end(struct tap_pump *p, int code)
{
	loop_stop(&p->loop, code);
}

static bool pump_is_full(const struct tap_pump *p)
{
	return p->out_done < p->out_len;
}

/* While passt takes nothing, nothing is taken from the link. */
static void pump_watch(struct tap_pump *p)
{
	uint32_t want = EPOLLIN | (pump_is_full(p) ? EPOLLOUT : 0);
	int r;

	if (want == p->stream_events)
		return;
	p->stream_events = want;
	loop_source_remove(&p->loop, &p->stream);
	loop_source_remove(&p->loop, &p->link);
	r = loop_source_add(&p->loop, &p->stream, p->stream_fd, want);
	if (r == 0 && !pump_is_full(p))
		r = loop_source_add(&p->loop, &p->link, p->link_fd, EPOLLIN);
	if (r < 0)
		pump_end(p, r);
}

static void pump_flush(struct tap_pump *p)
{
	ssize_t n = send(p->stream_fd, p->out + p->out_done, p->out_len - p->out_done,
		MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n > 0)
		p->out_done += (size_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
		pump_end(p, errno == EPIPE || errno == ECONNRESET ? 0 : -errno);
}

/* False: nothing waits. */
static bool pump_take_frame(struct tap_pump *p)
{
	ssize_t n = recv(p->link_fd, p->out + 4, TAP_FRAME_MAX, MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0)
		return errno != EAGAIN && errno != EINTR;
	if (n < TAP_FRAME_MIN || n > TAP_FRAME_MAX)
		return true;
	p->out[0] = (uint8_t)(n >> 24);
	p->out[1] = (uint8_t)(n >> 16);
	p->out[2] = (uint8_t)(n >> 8);
	p->out[3] = (uint8_t)n;
	p->out_len = (size_t)n + 4;
	p->out_done = 0;
	pump_flush(p);
	return true;
}

static void pump_on_link(struct loop_source *s, uint32_t events)
{
	struct tap_pump *p = CONTAINER_OF(s, struct tap_pump, link);

	for (int i = 0; i < TAP_PUMP_BURST && !pump_is_full(p) && !p->loop.stopped; i++) {
		if (!pump_take_frame(p))
			break;
	}
	if (!p->loop.stopped)
		pump_watch(p);
}

static size_t pump_frame_len(const uint8_t *b)
{
	return (size_t)b[0] << 24 | (size_t)b[1] << 16 | (size_t)b[2] << 8 | b[3];
}

/* Frames that are there whole go out; a link that takes none is a wire that is cut. */
static int pump_give_frames(struct tap_pump *p)
{
	size_t at = 0;

	while (p->in_len - at >= 4) {
		size_t len = pump_frame_len(p->in + at);

		if (len < TAP_FRAME_MIN || len > TAP_FRAME_MAX)
			return -EBADMSG;
		if (p->in_len - at - 4 < len)
			break;
		(void)!send(p->link_fd, p->in + at + 4, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		at += 4 + len;
	}
	p->in_len -= at;
	memmove(p->in, p->in + at, p->in_len);
	return 0;
}

static void pump_on_stream(struct loop_source *s, uint32_t events)
{
	struct tap_pump *p = CONTAINER_OF(s, struct tap_pump, stream);
	ssize_t n;
	int r;

	if (events & EPOLLOUT) {
		pump_flush(p);
		if (!p->loop.stopped)
			pump_watch(p);
	}
	if (p->loop.stopped || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	n = recv(p->stream_fd, p->in + p->in_len, sizeof p->in - p->in_len, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		pump_end(p, n == 0 || errno == ECONNRESET ? 0 : -errno);
		return;
	}
	p->in_len += (size_t)n;
	r = pump_give_frames(p);
	if (r < 0)
		pump_end(p, r);
}

int tap_pump_init(struct tap_pump *p, int link_fd, int stream_fd)
{
	int r;

	p->link_fd = link_fd;
	p->stream_fd = stream_fd;
	p->stream_events = 0;
	p->out_len = p->out_done = p->in_len = 0;
	r = loop_init(&p->loop);
	if (r < 0)
		return r;
	loop_source_init(&p->link, pump_on_link);
	loop_source_init(&p->stream, pump_on_stream);
	pump_watch(p);
	return p->loop.stopped ? p->loop.exit_code : 0;
}

int tap_pump_run(struct tap_pump *p)
{
	return loop_run(&p->loop);
}

void tap_pump_finish(struct tap_pump *p)
{
	loop_finish(&p->loop);
}
