#include "text-table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"

#define COLUMNS_MAX 12
#define CELL_MAX    256
#define GAP         2 /* columns between columns */

struct text_table {
	size_t columns;
	size_t widths[COLUMNS_MAX];
	char *cells; /* owned: row after row, a NUL behind each cell */
	size_t len, room;
};

/* Characters, not bytes: UTF-8 continuation bytes have no width. */
static size_t cell_width(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static void cell_add(struct text_table *t, const char *text, size_t len)
{
	if (t->room - t->len <= len) {
		t->room = 2 * t->room + CELL_MAX;
		t->cells = realloc(t->cells, t->room);
	}
	if (!t->cells)
		abort();
	memcpy(t->cells + t->len, text, len + 1);
	t->len += len + 1;
}

void text_table_row(struct text_table *t, const char *const *cells)
{
	for (size_t i = 0; i < t->columns; i++) {
		const char *raw = cells[i] && *cells[i] ? cells[i] : "-";
		char text[CELL_MAX];
		size_t len = str_escape(text, sizeof text, raw, strlen(raw), NULL);
		size_t width = cell_width(text);

		cell_add(t, text, len);
		if (width > t->widths[i])
			t->widths[i] = width;
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
	char blanks[CELL_MAX + GAP];
	const char *cell = t->cells;

	memset(blanks, ' ', sizeof blanks);
	for (size_t column = 0; cell < t->cells + t->len; cell += strlen(cell) + 1) {
		size_t pad = t->widths[column] - cell_width(cell) + GAP;

		fputs(cell, stdout);
		column = (column + 1) % t->columns;
		if (column == 0)
			putchar('\n');
		else
			fwrite(blanks, 1, pad, stdout);
	}
}

void text_table_destroy(struct text_table *t)
{
	if (!t)
		return;
	free(t->cells);
	free(t);
}
