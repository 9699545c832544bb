#include "tree-note.h"

#include <errno.h>
#include <stdlib.h>

bool tree_note_is_fatal(int error)
{
	static const int fatal[] = { ENOSPC, EDQUOT, EROFS, EIO, ENOMEM, EMFILE, ENFILE };

	for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++)
		if (abs(error) == fatal[i])
			return true;
	return false;
}
