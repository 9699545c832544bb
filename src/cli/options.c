#include "options.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "fail.h"
#include "parse.h"
#include "str.h"
#include "verbs.h"

struct parser {
	const struct verb *verb;
	char **argv;
	int argc, at;
	int n; /* positional arguments found, at the front of argv */
};

static const struct option_def *option_find(const struct verb *v, const char *name, size_t len)
{
	for (const struct option_def *o = v->options; o && o->name; o++) {
		if (strlen(o->name) == len && strncmp(o->name, name, len) == 0)
			return o;
	}
	return NULL;
}

static const struct option_def *option_find_letter(const struct verb *v, char letter)
{
	for (const struct option_def *o = v->options; o && o->name; o++) {
		if (o->letter == letter)
			return o;
	}
	return NULL;
}

static int option_store(const struct option_def *o, const char *value)
{
	int r = 0;

	switch (o->type) {
	case OPTION_FLAG: *(bool *)o->target = true; break;
	case OPTION_STRING: *(const char **)o->target = value; break;
	case OPTION_STRV: r = strv_push(o->target, value); break;
	case OPTION_SIZE: r = parse_size(value, o->target); break;
	case OPTION_COUNT: r = parse_u32(value, UINT32_MAX, o->target); break;
	case OPTION_DURATION: r = parse_duration(value, o->target); break;
	}
	if (r < 0)
		fail_say("--%s=%s cannot be understood", o->name, value);
	return r < 0 ? -1 : 0;
}

static const char *option_suggest(const struct verb *v, const char *name)
{
	const char *best = NULL;
	size_t least = 3;

	for (const struct option_def *o = v->options; o && o->name; o++) {
		size_t d = str_distance(o->name, name);

		if (d < least) {
			least = d;
			best = o->name;
		}
	}
	return best;
}

static int option_unknown(struct parser *p, const char *word)
{
	const char *near = str_has_prefix(word, "--") ? option_suggest(p->verb, word + 2) : NULL;

	if (near)
		fail_say(
			"%s: there is no option %s; did you mean --%s?", p->verb->name, word, near);
	else
		fail_say("%s: there is no option %s; see uvms help %s", p->verb->name, word,
			p->verb->name);
	return -1;
}

/* The value of O: behind '=', or the next word. NULL after a complaint. */
static const char *option_value(struct parser *p, const struct option_def *o, const char *attached)
{
	if (attached)
		return attached;
	if (p->at + 1 < p->argc)
		return p->argv[++p->at];
	fail_say("--%s needs a value: %s", o->name, o->argument);
	return NULL;
}

static int option_long(struct parser *p, char *word)
{
	const char *name = word + 2, *equals = strchr(name, '='), *value = NULL;
	size_t len = equals ? (size_t)(equals - name) : strlen(name);
	const struct option_def *o = option_find(p->verb, name, len);

	if (!o)
		return strcmp(word, "--help") == 0 ? -2 : option_unknown(p, word);
	if (o->type == OPTION_FLAG && equals) {
		fail_say("--%s takes no value", o->name);
		return -1;
	}
	if (o->type != OPTION_FLAG) {
		value = option_value(p, o, equals ? equals + 1 : NULL);
		if (!value)
			return -1;
	}
	return option_store(o, value);
}

static int option_short(struct parser *p, char *word)
{
	for (char *c = word + 1; *c; c++) {
		const struct option_def *o = option_find_letter(p->verb, *c);
		const char *value;

		if (!o)
			return *c == 'h' ? -2 : option_unknown(p, word);
		if (o->type == OPTION_FLAG) {
			option_store(o, NULL);
			continue;
		}
		value = option_value(p, o, c[1] ? c + 1 : NULL);
		return value ? option_store(o, value) : -1;
	}
	return 0;
}

static int option_count_check(const struct parser *p)
{
	const struct verb *v = p->verb;

	if (p->n < v->min || (v->max >= 0 && p->n > v->max)) {
		fail_say("%s: %s arguments; usage: uvms %s %s", v->name,
			p->n < v->min ? "too few" : "too many", v->name, str_or(v->arguments, ""));
		return -1;
	}
	return p->n;
}

int options_parse(const struct verb *v, int argc, char **argv)
{
	struct parser p = { .verb = v, .argv = argv, .argc = argc };
	bool only_words = false;
	int r;

	for (; p.at < argc; p.at++) {
		char *word = argv[p.at];

		/* from the second word on, a command is not ours to read */
		if (!only_words && strcmp(word, "--") == 0) {
			only_words = true;
			continue;
		}
		if (v->has_command && p.n >= 1 && *word != '-')
			only_words = true;
		if (only_words || word[0] != '-' || word[1] == 0) {
			argv[p.n++] = word;
			continue;
		}
		r = word[1] == '-' ? option_long(&p, word) : option_short(&p, word);
		if (r == -2)
			verbs_print_verb_help(v);
		if (r < 0)
			return r;
	}
	return option_count_check(&p);
}
