/* Parses a verb's arguments by its table of options. */
#pragma once

struct verb;

/*
 * Moves the positional arguments to the front of ARGV and returns their number; -1 after a complaint,
 * -2 after printing help.
 */
int options_parse(const struct verb *v, int argc, char **argv);
