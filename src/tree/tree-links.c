#include "tree-links.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_FIRST 64

struct tree_link {
	dev_t dev;
	ino_t ino;
	char *name; /* owned; NULL: free */
};

/* Where the inode is, or would be. There is always a free place. */
static struct tree_link *place(const struct tree_links *l, dev_t dev, ino_t ino)
{
	uint64_t hash = ((uint64_t)ino ^ (uint64_t)dev << 40) * 0x9e3779b97f4a7c15;

	for (size_t i = hash >> 32;; i++) {
		struct tree_link *k = &l->table[i & (l->size - 1)];

		if (!k->name || (k->dev == dev && k->ino == ino))
			return k;
	}
}

const char *tree_links_find(const struct tree_links *l, dev_t dev, ino_t ino)
{
	return l->size > 0 ? place(l, dev, ino)->name : NULL;
}

static int grow(struct tree_links *l)
{
	struct tree_links bigger = {
		.n = l->n, .bytes = l->bytes, .size = l->size ? 2 * l->size : SIZE_FIRST
	};

	if (l->size > 0 && l->n < l->size / 2)
		return 0;
	bigger.table = calloc(bigger.size, sizeof *bigger.table);
	if (!bigger.table)
		return -ENOMEM;
	for (size_t i = 0; i < l->size; i++)
		if (l->table[i].name)
			*place(&bigger, l->table[i].dev, l->table[i].ino) = l->table[i];
	free(l->table);
	*l = bigger;
	return 0;
}

int tree_links_add(struct tree_links *l, dev_t dev, ino_t ino, const char *name)
{
	char *copy;
	int r;

	if (l->n >= TREE_LINKS_MAX || l->bytes + strlen(name) >= TREE_LINKS_BYTES_MAX)
		return -E2BIG;
	r = grow(l);
	if (r < 0)
		return r;
	copy = strdup(name);
	if (!copy)
		return -ENOMEM;
	*place(l, dev, ino) = (struct tree_link){ dev, ino, copy };
	l->n++;
	l->bytes += strlen(name) + 1;
	return 0;
}

void tree_links_finish(struct tree_links *l)
{
	for (size_t i = 0; i < l->size; i++)
		free(l->table[i].name);
	free(l->table);
	*l = (struct tree_links){};
}
