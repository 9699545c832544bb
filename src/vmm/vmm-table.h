#pragma once

/* What each back-end can do, as the table of docs/backends.md, to standard output. */
void vmm_table_print(void);
