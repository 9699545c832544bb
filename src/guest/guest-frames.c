#include "guest-frames.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

static void guest_frames_update(struct guest_frames *f)
{
	bool backlog = f->out_len - f->out_pos > 0;
	uint32_t events = backlog ? EPOLLOUT : 0;

	if (f->ending || (!f->paused && guest_frames_has_room(f)))
		events |= EPOLLIN;
	guest_source_set(&f->source, events);
}

static int guest_frames_flush(struct guest_frames *f)
{
	while (f->out_pos < f->out_len) {
		ssize_t n = send(f->fd, f->out + f->out_pos, f->out_len - f->out_pos,
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return errno == EAGAIN || errno == EINTR ? 0 : -errno;
		f->out_pos += (size_t)n;
	}
	f->out_pos = f->out_len = 0;
	if (f->ending)
		shutdown(f->fd, SHUT_WR);
	return 0;
}

/* 1: something came; 0: nothing now; -ECONNRESET: the end. */
static int guest_frames_fill(struct guest_frames *f)
{
	ssize_t n;

	if (f->in_used > 0) {
		f->in_len -= f->in_used;
		memmove(f->in, f->in + f->in_used, f->in_len);
		f->in_used = 0;
	}
	n = recv(f->fd, f->in + f->in_len, AGENT_WIRE_FRAME_MAX - f->in_len, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -ECONNRESET;
	f->in_len += (size_t)n;
	return 1;
}

static int guest_frames_deliver(struct guest_frames *f)
{
	while (!f->paused && !f->ending) {
		struct agent_wire_msg m;
		ssize_t n = agent_wire_decode(f->in + f->in_used, f->in_len - f->in_used, &m);
		int r;

		if (n <= 0)
			return (int)n;
		f->in_used += (size_t)n;
		r = f->on_message(f, &m);
		if (r < 0)
			return r;
	}
	if (f->ending)
		f->in_len = f->in_used = 0;
	return 0;
}

static void guest_frames_event(struct guest_source *s, uint32_t events)
{
	struct guest_frames *f = GUEST_CONTAINER(s, struct guest_frames, source);
	int r = 0;

	if (events & EPOLLOUT) {
		r = guest_frames_flush(f);
		if (r == 0 && f->on_room && !f->ending && guest_frames_has_room(f))
			f->on_room(f);
	}
	if (r == 0 && (events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
		r = guest_frames_fill(f);
		if (r > 0)
			r = guest_frames_deliver(f);
	}
	if (r < 0)
		f->on_closed(f);
	else if (f->source.loop)
		guest_frames_update(f);
}

int guest_frames_init(struct guest_frames *f, struct guest_loop *l, int fd_consume)
{
	*f = (struct guest_frames){ .fd = fd_consume, .loop = l };
	f->in = malloc(AGENT_WIRE_FRAME_MAX);
	if (!f->in) {
		guest_frames_finish(f);
		return -ENOMEM;
	}
	guest_source_init(&f->source, l, f->fd, guest_frames_event);
	guest_frames_update(f);
	return 0;
}

void guest_frames_finish(struct guest_frames *f)
{
	guest_source_stop(&f->source);
	f->fd = fd_close(f->fd);
	free(f->in);
	free(f->out);
	f->in = f->out = NULL;
}

static int guest_frames_reserve(struct guest_frames *f)
{
	size_t want = f->out_len + AGENT_WIRE_FRAME_MAX;
	uint8_t *p;

	if (f->out_pos > 0) {
		memmove(f->out, f->out + f->out_pos, f->out_len - f->out_pos);
		f->out_len -= f->out_pos;
		f->out_pos = 0;
	}
	if (want <= f->out_size)
		return 0;
	p = realloc(f->out, want);
	if (!p)
		return -ENOMEM;
	f->out = p;
	f->out_size = want;
	return 0;
}

int guest_frames_send(struct guest_frames *f, const struct agent_wire_msg *m)
{
	ssize_t n;
	int r;

	if (!f->source.loop || f->ending)
		return -ENOTCONN;
	r = guest_frames_reserve(f);
	if (r < 0)
		return r;
	n = agent_wire_encode(m, f->out + f->out_len, f->out_size - f->out_len);
	if (n < 0)
		return (int)n;
	f->out_len += (size_t)n;
	guest_frames_flush(f); /* an error comes back as an event */
	guest_frames_update(f);
	return 0;
}

bool guest_frames_has_room(const struct guest_frames *f)
{
	return f->out_len - f->out_pos < GUEST_FRAMES_BACKLOG;
}

void guest_frames_pause(struct guest_frames *f)
{
	f->paused = true;
	guest_frames_update(f);
}

void guest_frames_resume(struct guest_frames *f)
{
	f->paused = false;
	/* read with the end of it in sight */
	if (guest_frames_deliver(f) < 0)
		f->on_closed(f);
	else if (f->source.loop)
		guest_frames_update(f);
}

void guest_frames_end(struct guest_frames *f)
{
	f->ending = true;
	guest_frames_flush(f);
	guest_frames_update(f);
}

int guest_frames_steal(struct guest_frames *f)
{
	guest_source_stop(&f->source);
	return TAKE_FD(f->fd);
}
