#include "sv-console.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "sockun.h"
#include "sv-logfile.h"
#include "sv.h"

#define CONSOLE_TAIL_BYTES  1500
#define CONSOLE_PANIC_BYTES 6000
#define CONSOLE_BEHIND_USEC (UINT64_C(10) * 1000)

struct console_client {
	struct sv_console *console;
	sd_event_source *io; /* owned */
	int fd;              /* owned; -EBADF: free */
};

struct sv_console {
	struct sv *sv;           /* borrowed */
	sd_event_source *io;     /* owned */
	sd_event_source *behind; /* owned: the log is; NULL: it never was */
	int fd;                  /* owned */
	struct sv_logfile log;
	struct console_client clients[SV_CONSOLE_CLIENTS];
};

static void client_close(struct console_client *c)
{
	c->io = sd_event_source_disable_unref(c->io);
	c->fd = fd_close(c->fd);
}

static int console_on_behind(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct sv_console *c = userdata;

	sv_logfile_catch_up(&c->log);
	return 0;
}

/* Without memory for it the log stays behind until more comes, or the end. */
static void console_catch_up_later(struct sv_console *c)
{
	if (!c->behind)
		(void)sd_event_add_time_relative(c->sv->event, &c->behind, CLOCK_MONOTONIC,
			CONSOLE_BEHIND_USEC, 0, console_on_behind, c);
	else if (sd_event_source_set_time_relative(c->behind, CONSOLE_BEHIND_USEC) >= 0)
		(void)sd_event_source_set_enabled(c->behind, SD_EVENT_ONESHOT);
}

/* Takes what is there. 1: some, 0: nothing now, -1: the end. */
static int console_drain(struct sv_console *c)
{
	char bytes[4096];
	ssize_t n = read(c->fd, bytes, sizeof bytes);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	sv_logfile_write(&c->log, bytes, (size_t)n);
	if (sv_logfile_is_behind(&c->log))
		console_catch_up_later(c);
	c->sv->status.console_dropped_bytes = c->log.dropped_bytes;
	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++) {
		if (c->clients[i].fd >= 0)
			(void)send(c->clients[i].fd, bytes, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	return 1;
}

/* What was said last is still in the socket. */
static void console_catch_up(struct sv_console *c)
{
	for (int i = 0; i < 256 && c->io && console_drain(c) > 0; i++)
		;
}

static int console_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct sv_console *c = userdata;

	if (console_drain(c) < 0)
		c->io = sd_event_source_disable_unref(c->io);
	return 0;
}

static int client_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct console_client *c = userdata;
	char bytes[1024];
	ssize_t n = read(fd, bytes, sizeof bytes);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		client_close(c);
	else
		(void)!write(
			c->console->fd, bytes, (size_t)n); /* a socket, or a terminal's master */
	return 0;
}

static struct sv_console *console_new_consume(struct sv *sv, int fd)
{
	struct sv_console *c = calloc(1, sizeof *c);

	if (!c) {
		close(fd);
		return NULL;
	}
	c->sv = sv;
	c->fd = fd;
	c->log.fd = -EBADF;
	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++)
		c->clients[i] = (struct console_client){ .console = c, .fd = -EBADF };
	return c;
}

int sv_console_create_consume(struct sv *sv, int fd, struct sv_console **ret)
{
	struct sv_console *c = console_new_consume(sv, fd);
	int r;

	if (!c)
		return -ENOMEM;
	r = sv_logfile_init(&c->log, sv->dir_fd, "console");
	if (r >= 0)
		r = sd_event_add_io(sv->event, &c->io, fd, EPOLLIN, console_on_io, c);
	if (r < 0) {
		sv_console_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

static int client_watch(struct console_client *c)
{
	return sd_event_add_io(c->console->sv->event, &c->io, c->fd, EPOLLIN, client_on_io, c);
}

int sv_console_open(struct sv_console *c)
{
	int pair[2], r;

	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++) {
		if (c->clients[i].fd >= 0)
			continue;
		r = sockun_pair(SOCK_STREAM | SOCK_NONBLOCK, pair);
		if (r < 0)
			return r;
		c->clients[i].fd = pair[0];
		r = client_watch(&c->clients[i]);
		if (r < 0) {
			client_close(&c->clients[i]);
			close(pair[1]);
			return r;
		}
		return pair[1];
	}
	return -EBUSY;
}

void sv_console_save(const struct sv_console *c, struct sv_console_saved *ret)
{
	*ret = (struct sv_console_saved){
		.fd = c->fd,
		.dropped_bytes = c->log.dropped_bytes + c->log.n_held,
		.gap_bytes = c->log.gap_bytes + c->log.n_held,
	};
	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++)
		ret->clients[i] = c->clients[i].fd;
}

int sv_console_resume_consume(
	struct sv *sv, const struct sv_console_saved *saved, struct sv_console **ret)
{
	struct sv_console *c = console_new_consume(sv, saved->fd);
	int r;

	for (size_t i = 0; i < SV_CONSOLE_CLIENTS && !c; i++)
		fd_close(saved->clients[i]);
	if (!c)
		return -ENOMEM;
	(void)sv_logfile_resume(&c->log, sv->dir_fd, "console");
	c->log.dropped_bytes = saved->dropped_bytes;
	c->log.gap_bytes = saved->gap_bytes;
	r = sd_event_add_io(sv->event, &c->io, c->fd, EPOLLIN, console_on_io, c);
	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++) {
		c->clients[i].fd = saved->clients[i];
		if (r >= 0 && c->clients[i].fd >= 0)
			r = client_watch(&c->clients[i]);
	}
	if (r < 0) {
		sv_console_destroy(c);
		return r;
	}
	*ret = c;
	return 0;
}

bool sv_console_shows_panic(struct sv_console *c)
{
	CLEANUP_FREE char *tail = NULL;

	console_catch_up(c);
	tail = sv_logfile_tail(&c->log, CONSOLE_PANIC_BYTES);
	return tail && strstr(tail, "Kernel panic - not syncing");
}

char *sv_console_tail(struct sv_console *c)
{
	return sv_logfile_tail(&c->log, CONSOLE_TAIL_BYTES);
}

void sv_console_destroy(struct sv_console *c)
{
	if (!c)
		return;
	console_catch_up(c);
	for (size_t i = 0; i < SV_CONSOLE_CLIENTS; i++)
		client_close(&c->clients[i]);
	sd_event_source_disable_unref(c->io);
	sd_event_source_disable_unref(c->behind);
	fd_close(c->fd);
	sv_logfile_finish(&c->log);
	free(c);
}
