/* Where a file has data: its regions by SEEK_DATA and SEEK_HOLE, and their map in a tar stream. */
#pragma once

#include "tar-wire.h"

#define TREE_SPARSE_REGIONS_MAX 4096

/* Most bytes of the map as text: a line for the count, two of at most 20 bytes for each region. */
#define TREE_SPARSE_TEXT_MAX ((1 + 2 * (TREE_SPARSE_REGIONS_MAX + 1)) * 21 + TAR_WIRE_BLOCK)

struct tree_sparse {
	size_t n; /* 0: the file is not sparse, or cannot tell */
	uint64_t data_bytes;
	uint64_t gap_min; /* smaller holes are taken for data */
	struct tar_wire_region region[TREE_SPARSE_REGIONS_MAX + 1];
};

/*
 * Fills *RET for a file of SIZE bytes. When there are more regions than fit, the smallest holes are
 * given up. The last region is empty and at SIZE when the file ends in a hole.
 */
void tree_sparse_scan(int fd, uint64_t size, struct tree_sparse *ret);

/* Writes the map for GNU sparse 1.0, padded; returns its length. */
size_t tree_sparse_text(const struct tree_sparse *s, char ret[static TREE_SPARSE_TEXT_MAX]);
