/*
 * uvms-vmm-null FD: plays $UVMS_NULL_SCRIPT, words separated by spaces, over FD:
 *
 *	up reset powerdown shutdown panicked	says that line
 *	sleep:MS				waits
 *	hang					waits for ever, deaf to commands and SIGTERM
 *	serve					obeys: "power-button" says powerdown and, when
 *						"obedient" came before, shutdown and exit; "quit" exits
 *	exit:N kill:N				ends so
 *
 * Default: "up obedient serve". For tests only.
 */
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool null_obedient;

static void null_tell(int fd, const char *line)
{
	dprintf(fd, "%s\n", line);
}

static void null_serve(int fd)
{
	char line[256];
	ssize_t n;

	while ((n = read(fd, line, sizeof line - 1)) > 0) {
		line[n] = 0;
		if (strstr(line, "quit")) {
			null_tell(fd, "shutdown");
			exit(0);
		}
		if (strstr(line, "power-button")) {
			null_tell(fd, "powerdown");
			if (null_obedient) {
				null_tell(fd, "shutdown");
				exit(0);
			}
		}
	}
	exit(0);
}

static void null_play(int fd, const char *word)
{
	if (strcmp(word, "serve") == 0)
		null_serve(fd);
	else if (strcmp(word, "obedient") == 0)
		null_obedient = true;
	else if (strncmp(word, "sleep:", 6) == 0)
		poll(NULL, 0, atoi(word + 6));
	else if (strncmp(word, "exit:", 5) == 0)
		exit(atoi(word + 5));
	else if (strncmp(word, "kill:", 5) == 0)
		raise(atoi(word + 5));
	else if (strcmp(word, "hang") == 0)
		for (signal(SIGTERM, SIG_IGN);;)
			pause();
	else
		null_tell(fd, word);
}

int main(int argc, char **argv)
{
	const char *script = getenv("UVMS_NULL_SCRIPT");
	char text[1024], *save;
	int fd = argc == 2 ? atoi(argv[1]) : -1;

	if (fd < 0) {
		fprintf(stderr, "usage: uvms-vmm-null FD\n");
		return 2;
	}
	snprintf(text, sizeof text, "%s", script ? script : "up obedient serve");
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save))
		null_play(fd, w);
	return 0;
}
