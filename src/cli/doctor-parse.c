#include "doctor-parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "str.h"

bool doctor_parse_version(const char *line, unsigned *ret_major, unsigned *ret_minor)
{
	const char *p = strstr(line, "version ");

	return p && sscanf(p + 8, "%4u.%4u", ret_major, ret_minor) == 2;
}

unsigned long doctor_parse_subids(const char *text, const char *name, unsigned uid)
{
	unsigned long longest = 0;

	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		char who[65], number[16];
		unsigned long first, count;

		snprintf(number, sizeof number, "%u", uid);
		if (sscanf(line, "%64[^:\n]:%lu:%lu", who, &first, &count) != 3)
			continue;
		if ((str_eq(who, name) || str_eq(who, number)) && count > longest)
			longest = count;
	}
	return longest;
}
