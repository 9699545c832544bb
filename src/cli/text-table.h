/* Columns for people: widths from the content, control bytes escaped. */
#pragma once

struct text_table;

/* HEADINGS ends with NULL. */
struct text_table *text_table_create(const char *const *headings);

/* As many cells as there are headings; NULL is "-". */
void text_table_row(struct text_table *t, const char *const *cells);
void text_table_print(struct text_table *t);
void text_table_destroy(struct text_table *t);
