/* uvms: the command line. uvms(1). */
#include <stdio.h>
#include <string.h>

#include "control-error.h"
#include "fail.h"
#include "log.h"
#include "options.h"
#include "verb-list.h"

/* Of a verb of two words the second may be the one that is wrong. */
static int unknown_verb(const char *word, const char *second)
{
	char both[64];
	const char *near = NULL;

	if (second && snprintf(both, sizeof both, "%s %s", word, second) < (int)sizeof both)
		near = verbs_suggest(both);
	near = near ? near : verbs_suggest(word);

	if (near)
		return fail(UVMS_EXIT_USAGE, NULL, NULL, "there is no verb %s; did you mean %s?",
			word, near);
	return fail(UVMS_EXIT_USAGE, NULL, "uvms help lists them", "there is no verb %s", word);
}

int main(int argc, char **argv)
{
	const struct verb *v;
	int words, n;

	log_open("uvms");
	if (argc < 2) {
		verbs_print_help();
		return UVMS_EXIT_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
		verbs_print_help();
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0)
		return verb_version.run(0, NULL);
	if (strcmp(argv[1], "--print-verbs") == 0) {
		verbs_print_table();
		return 0;
	}
	v = verbs_find(argc - 1, argv + 1, &words);
	if (!v)
		return unknown_verb(argv[1], argv[2]);
	argv += 1 + words;
	argc -= 1 + words;
	n = options_parse(v, argc, argv);
	if (n < 0)
		return n == -2 ? 0 : v->usage_exit ? v->usage_exit : UVMS_EXIT_USAGE;
	argv[n] = NULL;
	return v->run(n, argv);
}
