#include "tree-sparse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/param.h>
#include <unistd.h>

#define GAP_FIRST 8192

static struct tar_wire_region *last(struct tree_sparse *s)
{
	return &s->region[s->n - 1];
}

static void add(struct tree_sparse *s, uint64_t start, uint64_t end)
{
	uint64_t gap = s->n > 0 ? start - (last(s)->offset + last(s)->length) : UINT64_MAX;

	if (gap < s->gap_min)
		last(s)->length = end - last(s)->offset;
	else
		s->region[s->n++] = (struct tar_wire_region){ start, end - start };
}

/* Gives up holes until there is room again. */
static void compact(struct tree_sparse *s)
{
	while (s->n == TREE_SPARSE_REGIONS_MAX) {
		size_t n = s->n;

		s->gap_min = s->gap_min ? 4 * s->gap_min : GAP_FIRST;
		s->n = 0;
		for (size_t i = 0; i < n; i++)
			add(s, s->region[i].offset, s->region[i].offset + s->region[i].length);
	}
}

void tree_sparse_scan(int fd, uint64_t size, struct tree_sparse *s)
{
	uint64_t at = 0;

	s->n = 0;
	s->gap_min = s->data_bytes = 0;
	while (at < size) {
		off_t data = lseek(fd, (off_t)at, SEEK_DATA), hole;

		if (data < 0 || (uint64_t)data >= size)
			break; /* ENXIO: a hole up to the end */
		hole = lseek(fd, data, SEEK_HOLE);
		if (hole <= data) {
			s->n = 0;
			return;
		}
		at = MIN((uint64_t)hole, size);
		compact(s);
		add(s, (uint64_t)data, at);
	}
	if (s->n == 1 && s->region[0].offset == 0 && s->region[0].length == size)
		s->n = 0;
	else if (s->n == 0 || last(s)->offset + last(s)->length < size)
		s->region[s->n++] = (struct tar_wire_region){ size, 0 };
	for (size_t i = 0; i < s->n; i++)
		s->data_bytes += s->region[i].length;
}

size_t tree_sparse_text(const struct tree_sparse *s, char ret[static TREE_SPARSE_TEXT_MAX])
{
	size_t n = (size_t)sprintf(ret, "%zu\n", s->n), pad;

	for (size_t i = 0; i < s->n; i++)
		n += (size_t)sprintf(ret + n, "%" PRIu64 "\n%" PRIu64 "\n", s->region[i].offset,
			s->region[i].length);
	pad = tar_wire_padding(n);
	memset(ret + n, 0, pad);
	return n + pad;
}
