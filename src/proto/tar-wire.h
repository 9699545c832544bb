/*
 * Tar headers: bytes ↔ structs, for `uvms cp`.
 *
 * Written are ustar headers with a PAX extended header before them where a field does not fit: long
 * names, sizes from 8 GiB, large ids, times with nanoseconds, and sparse files in the encoding "GNU
 * sparse 1.0" (the map of the data stands before the data, in decimal lines). Read are in addition the
 * headers of GNU tar (long names 'L' and 'K', numbers in base 256, sparse files 'S') and of version 7.
 * User and group names and the extended attributes of others are ignored.
 *
 * Pure: no I/O, no allocation. What does not decode is -EBADMSG.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TAR_WIRE_BLOCK      512
#define TAR_WIRE_NAME_MAX   4095        /* bytes of a name or a link's text */
#define TAR_WIRE_PAX_MAX    (64 * 1024) /* bytes of one extended header */
#define TAR_WIRE_HEAD_MAX   (12 * 1024) /* most that tar_wire_encode() writes */
#define TAR_WIRE_SIZE_MAX   INT64_MAX
#define TAR_WIRE_OLD_MAP    4  /* regions in an old GNU sparse header */
#define TAR_WIRE_OLD_EXTEND 21 /* and in each block that goes on with it */

enum tar_wire_type {
	TAR_WIRE_FILE = '0',
	TAR_WIRE_LINK = '1', /* hard link to the entry LINK */
	TAR_WIRE_SYMLINK = '2',
	TAR_WIRE_CHAR = '3',
	TAR_WIRE_DISK = '4',
	TAR_WIRE_DIRECTORY = '5',
	TAR_WIRE_FIFO = '6',
	/* headers about the next entry */
	TAR_WIRE_PAX = 'x',
	TAR_WIRE_PAX_GLOBAL = 'g',
	TAR_WIRE_GNU_NAME = 'L',
	TAR_WIRE_GNU_LINK = 'K',
};

enum tar_wire_sparse {
	TAR_WIRE_DENSE,
	TAR_WIRE_SPARSE_PAX,   /* the map leads the data */
	TAR_WIRE_SPARSE_OLD,   /* the map is in this header, and goes on in blocks if `extended` */
	TAR_WIRE_SPARSE_OTHER, /* GNU sparse 0.x and what else there may be */
};

struct tar_wire_region {
	uint64_t offset, length; /* bytes */
};

struct tar_wire_entry {
	uint8_t type;   /* enum tar_wire_type, or another one's byte */
	uint8_t sparse; /* enum tar_wire_sparse */
	bool extended;  /* SPARSE_OLD */
	uint32_t mode;  /* 0 … 07777 */
	uint32_t uid, gid;
	uint64_t size; /* bytes that follow in the stream, without padding; the map's among them */
	uint64_t real_size; /* of the file; the same as SIZE if not sparse */
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	size_t name_len, link_len;
	char name[TAR_WIRE_NAME_MAX + 1]; /* terminated, no NUL inside */
	char link[TAR_WIRE_NAME_MAX + 1];
};

/* 1: *RET is filled (PAX not applied); 0: a block of zeros, an end mark; -EBADMSG. */
int tar_wire_decode(const uint8_t block[static TAR_WIRE_BLOCK], struct tar_wire_entry *ret);

/* Applies an extended header's records to the entry it belongs to. */
int tar_wire_apply_pax(struct tar_wire_entry *e, const char *records, size_t len);

/* Sets a name from an 'L' or 'K' header's data. -EBADMSG when it is too long. */
int tar_wire_set_name(struct tar_wire_entry *e, uint8_t type, const char *data, size_t len);

/*
 * The regions of an old GNU sparse header (FIRST), or of a block that continues it: at most
 * TAR_WIRE_OLD_EXTEND, their number is returned. *RET_MORE: another block follows.
 */
int tar_wire_old_map(const uint8_t block[static TAR_WIRE_BLOCK], bool first,
	struct tar_wire_region *ret, bool *ret_more);

/*
 * Writes the header blocks of E; a name of a directory gets its '/'. With SPARSE_PAX the map has to
 * follow and SIZE to count it. Returns their length, a multiple of the block; -EINVAL.
 */
ssize_t tar_wire_encode(const struct tar_wire_entry *e, uint8_t ret[static TAR_WIRE_HEAD_MAX]);

/* Bytes of padding after N bytes. */
static inline uint32_t tar_wire_padding(uint64_t n)
{
	return (uint32_t)(-n & (TAR_WIRE_BLOCK - 1));
}
