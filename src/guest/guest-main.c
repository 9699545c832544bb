/* uvms-guest(8): /init of the initramfs, or the agent beside the image's own init. */
#include "guest-init.h"
#include "guest-verb.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	int (*fn)(int argc, char *const argv[]);
} verbs[] = {
	{ "agent", guest_verb_agent },
};

int main(int argc, char *argv[])
{
	if (getpid() == 1)
		guest_init_run();
	for (size_t i = 0; argc > 1 && i < sizeof verbs / sizeof verbs[0]; i++)
		if (strcmp(argv[1], verbs[i].name) == 0)
			return verbs[i].fn(argc - 1, argv + 1);
	fputs("usage: uvms-guest agent [--ready-probe] [--secret-file FILE]\n", stderr);
	return 2;
}
