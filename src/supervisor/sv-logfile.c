#include "sv-logfile.h"

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

static size_t log_take_tokens(struct sv_logfile *l, size_t want)
{
	uint64_t now = clock_usec(CLOCK_MONOTONIC);

	l->tokens += (now - l->filled_usec) * SV_LOGFILE_RATE / 1000000;
	if (l->tokens > SV_LOGFILE_BURST)
		l->tokens = SV_LOGFILE_BURST;
	l->filled_usec = now;
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

/* In small pieces: what of the stack was used once stays there, in every supervisor. */
void sv_logfile_write(struct sv_logfile *l, const void *data, size_t len)
{
	const char *p = data;

	while (len > 0) {
		char text[4 * (LOG_PIECE + 3) + 1], plain[LOG_PIECE + 3];
		size_t n = len > LOG_PIECE ? LOG_PIECE : len, allowed = log_take_tokens(l, n);

		if (allowed > 0 && l->gap_bytes > 0) {
			int k = snprintf(text, sizeof text, "\n[uvms: %llu bytes dropped]\n",
				(unsigned long long)l->gap_bytes);

			l->gap_bytes = 0;
			log_append(l, text, (size_t)k);
		}
		if (allowed > 0)
			log_append(l, text,
				str_escape(text, sizeof text, plain, log_join(l, plain, p, allowed),
					"\n\t\\"));
		l->dropped_bytes += n - allowed;
		l->gap_bytes += n - allowed;
		p += n;
		len -= n;
	}
}

void sv_logfile_finish(struct sv_logfile *l)
{
	char text[4 * sizeof l->torn + 1];

	if (l->fd >= 0 && l->n_torn > 0)
		log_append(l, text, str_escape(text, sizeof text, l->torn, l->n_torn, NULL));
	l->n_torn = 0;
	if (l->fd >= 0)
		l->fd = fd_close(l->fd);
}

char *sv_logfile_tail(const struct sv_logfile *l, size_t max)
{
	size_t len, from;
	char *text = runtime_dir_log(l->dir_fd, l->name, &len);

	if (!text || len <= max)
		return text;
	/* not from the middle of a character */
	for (from = len - max; from < len && ((uint8_t)text[from] & 0xc0) == 0x80;)
		from++;
	memmove(text, text + from, len - from + 1);
	return text;
}
