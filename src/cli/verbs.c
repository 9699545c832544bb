#include "verbs.h"

#include <stdio.h>
#include <string.h>

#include "str.h"
#include "verb-list.h"

const struct verb *const verbs[] = {
	&verb_run,
	&verb_ls,
	&verb_status,
	&verb_inspect,
	&verb_exec,
	&verb_shell,
	&verb_cp,
	&verb_console,
	&verb_logs,
	&verb_forward,
	&verb_events,
	&verb_wait,
	&verb_start,
	&verb_stop,
	&verb_restart,
	&verb_kill,
	&verb_pause,
	&verb_resume,
	&verb_set,
	&verb_snapshot_ls, /* before the VM that could have such a name */
	&verb_snapshot_rm,
	&verb_snapshot,
	&verb_restore,
	&verb_attach,
	&verb_detach,
	&verb_refresh,
	&verb_rm,
	&verb_prune,
	&verb_image_build,
	&verb_image_pull,
	&verb_image_ls,
	&verb_image_inspect,
	&verb_image_rm,
	&verb_volume_ls,
	&verb_volume_rm,
	&verb_kernel_add,
	&verb_kernel_ls,
	&verb_kernel_rm,
	&verb_doctor,
	&verb_version,
	&verb_help,
	NULL,
};

/* How many words of ARGV make up NAME: 1, 2, or 0. */
static int verb_matches(const char *name, int argc, char **argv)
{
	const char *space = strchr(name, ' ');

	if (!space)
		return argc > 0 && strcmp(name, argv[0]) == 0;
	if (argc < 2 || strncmp(name, argv[0], (size_t)(space - name)) != 0 ||
		strlen(argv[0]) != (size_t)(space - name))
		return 0;
	return strcmp(space + 1, argv[1]) == 0 ? 2 : 0;
}

const struct verb *verbs_find(int argc, char **argv, int *ret_words)
{
	for (const struct verb *const *v = verbs; *v; v++) {
		int words = verb_matches((*v)->name, argc, argv);

		if (words == 0)
			continue;
		*ret_words = words;
		return *v;
	}
	return NULL;
}

const char *verbs_suggest(const char *word)
{
	const char *best = NULL;
	size_t least = 3;

	for (const struct verb *const *v = verbs; *v; v++) {
		size_t d = str_distance((*v)->name, word);

		if (d < least) {
			least = d;
			best = (*v)->name;
		}
	}
	return best;
}

void verbs_print_help(void)
{
	printf("usage: uvms VERB [OPTIONS] [ARGUMENTS]\n\n"
	       "Services and programs, each in a virtual machine of its own.\n\n");
	for (const struct verb *const *v = verbs; *v; v++)
		printf("  %-14s %s\n", (*v)->name, (*v)->summary);
	printf("\nuvms help VERB tells more; uvms(1) tells all.\n");
}

void verbs_print_verb_help(const struct verb *v)
{
	printf("usage: uvms %s %s\n\n%s\n", v->name, str_or(v->arguments, ""), v->summary);
	if (v->description)
		printf("\n%s\n", v->description);
	if (v->options)
		printf("\n");
	for (const struct option_def *o = v->options; o && o->name; o++) {
		char left[80];

		snprintf(left, sizeof left, "--%s%s%s", o->name, o->argument ? "=" : "",
			str_or(o->argument, ""));
		if (o->letter)
			printf("  -%c, %-28s %s\n", o->letter, left, o->help);
		else
			printf("      %-28s %s\n", left, o->help);
	}
}

void verbs_print_table(void)
{
	for (const struct verb *const *v = verbs; *v; v++) {
		printf("verb\t%s\t%s\t%s\n", (*v)->name, str_or((*v)->arguments, ""),
			(*v)->summary);
		for (const struct option_def *o = (*v)->options; o && o->name; o++)
			printf("option\t%s\t--%s\t%s\t%s\t%s%.1s\n", (*v)->name, o->name,
				str_or(o->argument, ""), o->help, o->letter ? "-" : "", &o->letter);
	}
}
