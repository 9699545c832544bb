/* What is not as it should be in a copied tree, entry by entry (enum agent_wire_copy_note). */
#pragma once

#include "agent-wire.h"

#include <stdbool.h>

struct tree_notes {
	/* ERROR: a positive errno for AGENT_COPY_FAILED, else 0. PATH: names of the stream. */
	void (*note)(void *user, uint8_t kind, int error, const char *path);
	void *user; /* borrowed */
};

/* Whether the entry is not there, or not whole; else it is only worth a warning. */
static inline bool tree_note_is_failure(uint8_t kind)
{
	return kind < AGENT_COPY_APART;
}

/* An error that the next entry would meet, too: no space, no memory, no descriptors. */
bool tree_note_is_fatal(int error);
