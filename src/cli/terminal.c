#include "terminal.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios terminal_saved;
static bool terminal_is_raw;

void terminal_restore(void)
{
	if (terminal_is_raw)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal_saved);
	terminal_is_raw = false;
}

int terminal_raw(void)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &terminal_saved) < 0)
		return -errno;
	raw = terminal_saved;
	cfmakeraw(&raw);
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &raw) < 0)
		return -errno;
	terminal_is_raw = true;
	atexit(terminal_restore);
	return 0;
}

void terminal_size(uint16_t *ret_rows, uint16_t *ret_cols)
{
	struct winsize w = { 0 };

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) < 0)
		(void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &w);
	*ret_rows = w.ws_row;
	*ret_cols = w.ws_col;
}
