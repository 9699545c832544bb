/*
 * A tar stream, taken apart: bytes are pushed in pieces of any size, entries and their data come out.
 *
 * Theory of operation. A state machine over blocks of 512 bytes. Headers about the next entry (PAX,
 * GNU long names) are collected in one buffer each of a bounded size and applied to the header that
 * follows. The data of a sparse file come out with their offsets in the file; its map is read and
 * checked before: regions in order, inside the file, as many bytes as the stream carries. What is
 * malformed ends the stream with -EBADMSG; a form that is only not supported costs its entry.
 *
 * Memory: the buffers below, and a map of at most TREE_READ_REGIONS_MAX regions while there is one.
 */
#pragma once

#include "tar-wire.h"

#define TREE_READ_REGIONS_MAX 65536
#define TREE_READ_ENTRIES_MAX (16 * 1024 * 1024) /* headers in one stream */
#define TREE_READ_REST_MAX    (1024 * 1024)      /* bytes behind the end mark */

struct tree_read_ops {
	/* 0: its data are wanted; 1: they are not, and no end comes; -errno ends the stream. */
	int (*entry)(void *user, const struct tar_wire_entry *e);
	int (*data)(void *user, uint64_t offset, const void *bytes, size_t n); /* as entry */
	int (*end)(void *user); /* of an entry whose data were wanted */
	/* A sparse file of a form that is not supported: it is left out. */
	void (*odd)(void *user, const struct tar_wire_entry *e);
};

struct tree_read {
	const struct tree_read_ops *ops; /* borrowed */
	void *user;                      /* borrowed */
	int (*state)(struct tree_read *r, const uint8_t **p, size_t *n);
	uint64_t n_headers;
	size_t have;            /* bytes in block */
	uint64_t left, padding; /* of the present data, and behind it */
	uint64_t rest;          /* bytes behind the end mark */
	bool wanted, odd;
	bool have_pax, have_name, have_link;
	uint8_t collecting; /* enum tar_wire_type of what is collected */
	size_t collected, collect_want;
	size_t pax_len, name_len, link_len;
	struct tar_wire_region *map; /* owned */
	size_t n_map, map_size, region;
	uint64_t in_region; /* bytes of it that have come */
	uint64_t map_numbers, map_count, map_offset, number;
	bool in_number;
	struct tar_wire_entry entry;
	uint8_t block[TAR_WIRE_BLOCK];
	char name[TAR_WIRE_NAME_MAX + 2], link[TAR_WIRE_NAME_MAX + 2];
	char pax[TAR_WIRE_PAX_MAX];
};

int tree_read_create(const struct tree_read_ops *ops, void *user, struct tree_read **ret);
void tree_read_destroy(struct tree_read *r);

/* 0; -EBADMSG: malformed; -E2BIG: more than the limits above; or what a function of OPS returned. */
int tree_read_push(struct tree_read *r, const void *bytes, size_t n);

/* Whether the stream may end here. */
bool tree_read_is_whole(const struct tree_read *r);
