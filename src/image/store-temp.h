/*
 * What builders have in hand, inside the store so that it can become a blob by a link.
 *
 * A file has no name at all where the file system can do that (O_TMPFILE); else, like a directory,
 * it is locked (lock.h) and whatever nobody holds any more is swept when the next one is made: a
 * killed builder leaves nothing for good.
 */
#pragma once

#include "store.h"

struct store_temp {
	int fd;        /* owned */
	int parent;    /* borrowed: of the store */
	char name[32]; /* "": it has none */
};

#define STORE_TEMP_IDLE                                                                            \
	{                                                                                          \
		.fd = -EBADF, .parent = -EBADF                                                     \
	}

/* A file open for reading and writing, 0600. */
int store_temp_file(struct store *s, struct store_temp *ret);

/* A directory, 0700. */
int store_temp_dir(struct store *s, struct store_temp *ret);

/* Removes what killed builders left. The above do it first, too. */
void store_temp_sweep(struct store *s);

/* Closes and removes it, with all that is in it. */
void store_temp_finish(struct store_temp *t);
