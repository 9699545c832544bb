#include "copy-progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "loop.h"
#include "str.h"

#define EVERY_USEC  200000
#define FIRST_USEC  500000 /* what is over before is not worth a line */
#define COLUMNS_DEF 80
#define NUMBERS_LEN 36

void copy_progress_init(struct copy_progress *p, bool quiet)
{
	uint64_t now = loop_now_usec();

	*p = (struct copy_progress){ .shown = !quiet && isatty(STDERR_FILENO),
		.start_usec = now,
		.next_usec = now + FIRST_USEC };
}

static const char *size_text(double bytes, char buf[static 16])
{
	static const char units[] = "BKMGTPE";
	size_t i = 0;

	for (; bytes >= 1024 && units[i + 1]; i++)
		bytes /= 1024;
	snprintf(buf, 16, i ? "%.1f %ciB" : "%.0f %c", bytes, units[i]);
	return buf;
}

static int columns(void)
{
	struct winsize w = { 0 };

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : COLUMNS_DEF;
}

void copy_progress_add(struct copy_progress *p, uint64_t bytes, const char *name)
{
	uint64_t now;
	char done[16], rate[16], safe[512];
	int room;

	p->bytes += bytes;
	if (!p->shown)
		return;
	now = loop_now_usec();
	if (now < p->next_usec)
		return;
	p->next_usec = now + EVERY_USEC;
	p->drawn = true;
	room = columns() - NUMBERS_LEN;
	str_escape(safe, sizeof safe, name, strlen(name), NULL);
	fprintf(stderr, "\r\033[K%11s  %11s/s  %.*s", size_text((double)p->bytes, done),
		size_text((double)p->bytes * 1e6 / (double)(now - p->start_usec), rate),
		room > 0 ? room : 0, safe);
}

void copy_progress_clear(struct copy_progress *p)
{
	if (p->drawn)
		fputs("\r\033[K", stderr);
	p->drawn = false;
}
