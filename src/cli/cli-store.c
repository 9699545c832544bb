#include "cli-store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "store.h"
#include "str.h"

#define CLI_EXIT_INTERRUPTED 130

struct store *cli_store(void)
{
	CLEANUP_CLOSE int state = vm_dirs_open_state(cli_dirs(), ".");
	struct store *s;
	int r = state < 0 ? state : store_open(state, &s);

	if (r < 0)
		exit(fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "the store in %s cannot be used",
			cli_dirs()->state));
	return s;
}

void cli_store_say(const char *line)
{
	fail_say("%s", line);
}

int cli_store_fail(int error, const char *reason, const char *next, const char *doing)
{
	if (error == -EINTR) {
		fail_say("%s: interrupted; nothing is left behind", doing);
		return CLI_EXIT_INTERRUPTED;
	}
	if (error == -ENOSPC && !next)
		next = "make room where the store is, then try again";
	return fail(error == -ENOPKG ? UVMS_EXIT_NOT_SUPPORTED : UVMS_EXIT_FAILED,
		reason ? reason : strerror(-error), next, "%s", doing);
}

char *cli_store_size(uint64_t bytes)
{
	if (bytes >= 1ULL << 30)
		return str_printf("%.1f GiB", (double)bytes / (1ULL << 30));
	return str_printf("%.1f MiB", (double)bytes / (1 << 20));
}
