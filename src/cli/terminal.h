/* The caller's terminal: raw while a session has it, restored at the end whatever happens. */
#pragma once

#include <stdint.h>

/* -ENOTTY when stdin is none. */
int terminal_raw(void);
void terminal_restore(void);
void terminal_size(uint16_t *ret_rows, uint16_t *ret_cols);
