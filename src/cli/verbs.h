/*
 * The verbs of `uvms`: one record each, from which parsing, --help, completion and the man-page check
 * come. A verb's options are a table too; values land in the verb file's static arg_* variables.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum option_type {
	OPTION_FLAG,     /* bool: set to true */
	OPTION_STRING,   /* const char * */
	OPTION_STRV,     /* char **, appended */
	OPTION_SIZE,     /* uint64_t, bytes */
	OPTION_COUNT,    /* uint32_t */
	OPTION_DURATION, /* uint64_t, microseconds */
};

struct option_def {
	const char *name;
	char letter;          /* 0: none */
	const char *argument; /* NULL for flags */
	enum option_type type;
	void *target;
	const char *help;
};

struct verb {
	const char *name; /* "run", or "image build": two words */
	const char *arguments;
	const char *summary;
	const char *description;          /* more than the summary, for --help; may be NULL */
	const struct option_def *options; /* ends with a NULL name; may be NULL */
	int min, max;                     /* positional arguments; -1: any number */
	bool has_command; /* a command follows the first one: after "--", or from the second on */
	int usage_exit;   /* for wrong usage; 0: UVMS_EXIT_USAGE */
	int (*run)(int argc, char **argv);
};

extern const struct verb *const verbs[]; /* ends with NULL */

/* Finds the verb of argv[0] (and [1]); *RET_WORDS says how many words it took. */
const struct verb *verbs_find(int argc, char **argv, int *ret_words);

/* The nearest name, or NULL when none is near. */
const char *verbs_suggest(const char *word);

void verbs_print_help(void);
void verbs_print_verb_help(const struct verb *v);

/*
 * Machine-readable: "verb<TAB>NAME<TAB>ARGUMENTS<TAB>SUMMARY",
 * "option<TAB>VERB<TAB>--NAME<TAB>ARGUMENT<TAB>HELP<TAB>-LETTER".
 */
void verbs_print_table(void);
