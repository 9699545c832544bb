#include "text-table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"

#define COLUMNS_MAX 12
#define CELL_MAX    256

struct text_table {
	size_t columns;
	size_t widths[COLUMNS_MAX];
	char **cells; /* owned, row after row */
	size_t n, room;
};

/* Characters, not bytes: UTF-8 continuation bytes have no width. */
static size_t cell_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void cell_add(struct text_table *t, const char *text)
{
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 64;
		t->cells = reallocarray(t->cells, t->room, sizeof *t->cells);
	}
	if (!t->cells || !(t->cells[t->n] = strdup(text)))
		abort();
	t->n++;
}

void text_table_row(struct text_table *t, const char *const *cells)
{
	for (size_t i = 0; i < t->columns; i++) {
		const char *raw = cells[i] && *cells[i] ? cells[i] : "-";
		char text[CELL_MAX];

		str_escape(text, sizeof text, raw, strlen(raw), NULL);
		cell_add(t, text);
		if (cell_width(text) > t->widths[i])
			t->widths[i] = cell_width(text);
	}
}

struct text_table *text_table_create(const char *const *headings)
{
	struct text_table *t = calloc(1, sizeof *t);

	if (!t)
		abort();
	while (headings[t->columns] && t->columns < COLUMNS_MAX)
		t->columns++;
	text_table_row(t, headings);
	return t;
}

void text_table_print(struct text_table *t)
{
	for (size_t i = 0; i < t->n; i++) {
		size_t column = i % t->columns;
		int pad = (int)(t->widths[column] - cell_width(t->cells[i]));

		if (column + 1 == t->columns)
			printf("%s\n", t->cells[i]);
		else
			printf("%s%*s  ", t->cells[i], pad, "");
	}
}

void text_table_destroy(struct text_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->n; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}
