#include "sv-logfile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "runtime-dir.h"
#include "str.h"

#define LOG_PIECE 1024 /* bytes */

static int log_open_segment(struct sv_logfile *l, int flags)
{
	l->fd = openat(l->dir_fd, l->name,
		O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | flags, 0640);
	l->size = 0;
	return l->fd < 0 ? -errno : 0;
}

static void log_begin(struct sv_logfile *l, int dir_fd, const char *name)
{
	*l = (struct sv_logfile){ .dir_fd = dir_fd,
		.fd = -EBADF,
		.tokens = SV_LOGFILE_BURST,
		.filled_usec = clock_usec(CLOCK_MONOTONIC) };
	snprintf(l->name, sizeof l->name, "%s", name);
}

int sv_logfile_init(struct sv_logfile *l, int dir_fd, const char *name)
{
	log_begin(l, dir_fd, name);
	return log_open_segment(l, O_TRUNC);
}

int sv_logfile_resume(struct sv_logfile *l, int dir_fd, const char *name)
{
	struct stat st;
	int r;

	log_begin(l, dir_fd, name);
	r = log_open_segment(l, 0);
	if (r == 0 && fstat(l->fd, &st) == 0)
		l->size = (size_t)st.st_size;
	return r;
}

static void log_rotate(struct sv_logfile *l)
{
	char old[40];

	snprintf(old, sizeof old, "%s.1", l->name);
	(void)renameat(l->dir_fd, l->name, l->dir_fd, old);
	l->fd = fd_close(l->fd);
	(void)log_open_segment(l, O_TRUNC);
}

static void log_refill(struct sv_logfile *l)
{
	uint64_t now = clock_usec(CLOCK_MONOTONIC);

	l->tokens += (now - l->filled_usec) * SV_LOGFILE_RATE / 1000000;
	if (l->tokens > SV_LOGFILE_BURST)
		l->tokens = SV_LOGFILE_BURST;
	l->filled_usec = now;
}

static size_t log_take_tokens(struct sv_logfile *l, size_t want)
{
	if (want > l->tokens)
		want = (size_t)l->tokens;
	l->tokens -= want;
	return want;
}

static void log_append(struct sv_logfile *l, const char *text, size_t len)
{
	if (l->size + len > SV_LOGFILE_SEGMENT)
		log_rotate(l);
	if (l->fd < 0)
		return;
	if (fd_write_all(l->fd, text, len) == 0)
		l->size += len;
	else
		l->dropped_bytes += len; /* a full disk costs the log, not the VM */
}

/* Copies without carriage returns: consoles end their lines with CR LF. */
static size_t log_without_cr(char *out, const char *in, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (in[i] != '\r')
			out[n++] = in[i];
	}
	return n;
}

/* A character may be torn between two writes, or two pieces: its beginning waits for the rest. */
static size_t log_join(struct sv_logfile *l, char *out, const char *in, size_t len)
{
	size_t n = l->n_torn;

	memcpy(out, l->torn, n);
	n += log_without_cr(out + n, in, len);
	l->n_torn = str_utf8_unfinished(out, n);
	n -= l->n_torn;
	memcpy(l->torn, out + n, l->n_torn);
	return n;
}

/* LEN is at most LOG_PIECE: what of the stack was used once stays there, in every supervisor. */
static void log_put(struct sv_logfile *l, const char *p, size_t len)
{
	char text[4 * (LOG_PIECE + 3) + 1], plain[LOG_PIECE + 3];

	if (l->gap_bytes > 0) {
		int k = snprintf(text, sizeof text, "\n[uvms: %llu bytes dropped]\n",
			(unsigned long long)l->gap_bytes);

		l->gap_bytes = 0;
		log_append(l, text, (size_t)k);
	}
	log_append(l, text,
		str_escape(text, sizeof text, plain, log_join(l, plain, p, len), "\n\t\\"));
}

/* There is no room for it now: it is dropped when more comes before there is. */
static void log_hold(struct sv_logfile *l, const char *p, size_t len)
{
	size_t keep = sizeof l->held - len, gone;

	if (keep > l->n_held)
		keep = l->n_held;
	gone = l->n_held - keep;
	memmove(l->held, l->held + gone, keep);
	memcpy(l->held + keep, p, len);
	l->n_held = keep + len;
	l->dropped_bytes += gone;
	l->gap_bytes += gone;
}

static void log_let_go(struct sv_logfile *l)
{
	size_t n = l->n_held;

	l->n_held = 0;
	if (n > 0)
		log_put(l, l->held, n);
}

void sv_logfile_catch_up(struct sv_logfile *l)
{
	log_refill(l);
	if (l->tokens < l->n_held)
		return;
	l->tokens -= l->n_held;
	log_let_go(l);
}

bool sv_logfile_is_behind(const struct sv_logfile *l)
{
	return l->n_held > 0;
}

void sv_logfile_write(struct sv_logfile *l, const void *data, size_t len)
{
	const char *p = data;

	static_assert(LOG_PIECE == SV_LOGFILE_HELD, "a piece can be held, and what is held is one");
	while (len > 0) {
		size_t n = len > LOG_PIECE ? LOG_PIECE : len, allowed = 0;

		sv_logfile_catch_up(l);
		if (l->n_held == 0)
			allowed = log_take_tokens(l, n);
		if (allowed > 0)
			log_put(l, p, allowed);
		log_hold(l, p + allowed, n - allowed);
		p += n;
		len -= n;
	}
}

void sv_logfile_finish(struct sv_logfile *l)
{
	char text[4 * sizeof l->torn + 1];

	if (l->fd >= 0)
		log_let_go(l);
	if (l->fd >= 0 && l->n_torn > 0)
		log_append(l, text, str_escape(text, sizeof text, l->torn, l->n_torn, NULL));
	l->n_torn = 0;
	if (l->fd >= 0)
		l->fd = fd_close(l->fd);
}

char *sv_logfile_tail(struct sv_logfile *l, size_t max)
{
	size_t len, from;
	char *text;

	if (l->fd >= 0)
		log_let_go(l); /* who asks wants the last words */
	text = runtime_dir_log(l->dir_fd, l->name, &len);
	if (!text || len <= max)
		return text;
	/* not from the middle of a character */
	for (from = len - max; from < len && ((uint8_t)text[from] & 0xc0) == 0x80;)
		from++;
	memmove(text, text + from, len - from + 1);
	return text;
}
