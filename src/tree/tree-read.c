#include "tree-read.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>

/* Each state takes what it can of the N bytes at P. */
static int state_header(struct tree_read *r, const uint8_t **p, size_t *n);

static void take(const uint8_t **p, size_t *n, size_t taken)
{
	*p += taken;
	*n -= taken;
}

/* Whether a whole block is in r->block now. */
static bool fill_block(struct tree_read *r, const uint8_t **p, size_t *n)
{
	size_t more = MIN(*n, TAR_WIRE_BLOCK - r->have);

	memcpy(r->block + r->have, *p, more);
	take(p, n, more);
	r->have += more;
	if (r->have < TAR_WIRE_BLOCK)
		return false;
	r->have = 0;
	return true;
}

/* ---- data ---- */

static int state_padding(struct tree_read *r, const uint8_t **p, size_t *n)
{
	size_t taken = (size_t)MIN((uint64_t)*n, r->padding);

	take(p, n, taken);
	r->padding -= taken;
	if (r->padding == 0)
		r->state = state_header;
	return 0;
}

static int data_end(struct tree_read *r)
{
	int q = r->wanted ? r->ops->end(r->user) : 0;

	free(r->map);
	r->map = NULL;
	r->n_map = r->map_size = 0;
	r->wanted = false;
	r->state = r->padding > 0 ? state_padding : state_header;
	return q;
}

/* Gives on at most N bytes, no further than the present region reaches. */
static int data_piece(struct tree_read *r, const uint8_t *p, size_t n, size_t *ret)
{
	uint64_t offset = r->entry.real_size - r->left;

	*ret = n;
	if (r->map) {
		struct tar_wire_region *g = &r->map[r->region];

		*ret = (size_t)MIN((uint64_t)n, g->length - r->in_region);
		offset = g->offset + r->in_region;
		r->in_region += *ret;
		if (r->in_region == g->length) {
			r->region++;
			r->in_region = 0;
		}
	}
	if (!r->wanted || *ret == 0)
		return 0;
	return r->ops->data(r->user, offset, p, *ret);
}

static int state_data(struct tree_read *r, const uint8_t **p, size_t *n)
{
	while (r->left > 0 && *n > 0) {
		size_t piece;
		int q = data_piece(r, *p, (size_t)MIN((uint64_t)*n, r->left), &piece);

		if (q < 0)
			return q;
		if (q > 0)
			r->wanted = false;
		take(p, n, piece);
		r->left -= piece;
	}
	return r->left == 0 ? data_end(r) : 0;
}

static int data_begin(struct tree_read *r)
{
	int q = 0;

	r->region = 0;
	r->in_region = 0;
	if (r->odd)
		r->ops->odd(r->user, &r->entry);
	else
		q = r->ops->entry(r->user, &r->entry);
	if (q < 0)
		return q;
	r->wanted = !r->odd && q == 0;
	r->state = state_data;
	return r->left == 0 ? data_end(r) : 0;
}

/* ---- maps of sparse files ---- */

static int map_add(struct tree_read *r, uint64_t offset, uint64_t length)
{
	struct tar_wire_region *g = r->n_map > 0 ? &r->map[r->n_map - 1] : NULL;
	uint64_t end;

	if (__builtin_add_overflow(offset, length, &end) || end > r->entry.real_size ||
		(g && offset < g->offset + g->length))
		return -EBADMSG;
	if (length == 0)
		return 0; /* the end of a file that ends in a hole */
	if (r->n_map == TREE_READ_REGIONS_MAX)
		return -E2BIG;
	if (r->n_map == r->map_size) {
		size_t size = r->map_size ? 2 * r->map_size : 64;
		void *p = reallocarray(r->map, size, sizeof *r->map);

		if (!p)
			return -ENOMEM;
		r->map = p;
		r->map_size = size;
	}
	r->map[r->n_map++] = (struct tar_wire_region){ offset, length };
	return 0;
}

static int map_end(struct tree_read *r)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < r->n_map; i++)
		sum += r->map[i].length; /* no overflow: in order, and inside the file */
	if (sum != r->left)
		return -EBADMSG;
	return data_begin(r);
}

static int state_old_map(struct tree_read *r, const uint8_t **p, size_t *n)
{
	struct tar_wire_region g[TAR_WIRE_OLD_EXTEND];
	bool more;
	int count, q;

	if (!fill_block(r, p, n))
		return 0;
	count = tar_wire_old_map(r->block, false, g, &more);
	if (count < 0 || (count == 0 && more))
		return -EBADMSG;
	for (int i = 0; i < count; i++) {
		q = map_add(r, g[i].offset, g[i].length);
		if (q < 0)
			return q;
	}
	return more ? 0 : map_end(r);
}

static int old_map_begin(struct tree_read *r)
{
	struct tar_wire_region g[TAR_WIRE_OLD_EXTEND];
	bool more;
	int count = tar_wire_old_map(r->block, true, g, &more), q;

	for (int i = 0; i < count; i++) {
		q = map_add(r, g[i].offset, g[i].length);
		if (q < 0)
			return q;
	}
	if (count < 0)
		return count;
	r->state = state_old_map;
	return more ? 0 : map_end(r);
}

/* A line of the map: the count, then offset and length in turn. */
static int map_number(struct tree_read *r)
{
	uint64_t v = r->number;

	r->number = 0;
	r->in_number = false;
	if (r->map_numbers++ == 0) {
		if (v > TREE_READ_REGIONS_MAX)
			return -E2BIG;
		r->map_count = v;
		return 0;
	}
	if (r->map_numbers % 2 == 0) {
		r->map_offset = v; /* waits for its length */
		return 0;
	}
	return map_add(r, r->map_offset, v);
}

static int map_byte(struct tree_read *r, uint8_t c)
{
	if (c == '\n' && r->in_number)
		return map_number(r);
	if (c < '0' || c > '9' || r->number > TAR_WIRE_SIZE_MAX / 10)
		return -EBADMSG;
	r->number = r->number * 10 + (uint64_t)(c - '0');
	r->in_number = true;
	return 0;
}

static bool map_is_whole(const struct tree_read *r)
{
	return r->map_numbers > 0 && r->map_numbers == 1 + 2 * r->map_count;
}

static int state_pax_map(struct tree_read *r, const uint8_t **p, size_t *n)
{
	if (!fill_block(r, p, n))
		return 0;
	if (r->left < TAR_WIRE_BLOCK)
		return -EBADMSG;
	r->left -= TAR_WIRE_BLOCK;
	for (size_t i = 0; i < TAR_WIRE_BLOCK && !map_is_whole(r); i++) {
		int q = map_byte(r, r->block[i]);

		if (q < 0)
			return q;
	}
	return map_is_whole(r) ? map_end(r) : 0;
}

/* ---- headers ---- */

static int state_end(struct tree_read *r, const uint8_t **p, size_t *n)
{
	r->rest += *n;
	take(p, n, *n);
	return r->rest > TREE_READ_REST_MAX ? -EBADMSG : 0;
}

static int state_collect(struct tree_read *r, const uint8_t **p, size_t *n)
{
	char *to = r->collecting == TAR_WIRE_PAX        ? r->pax
		   : r->collecting == TAR_WIRE_GNU_NAME ? r->name
							: r->link;
	size_t more = MIN(*n, r->collect_want - r->collected);

	if (r->collecting != TAR_WIRE_PAX_GLOBAL)
		memcpy(to + r->collected, *p, more);
	take(p, n, more);
	r->collected += more;
	if (r->collected < r->collect_want)
		return 0;
	r->state = r->padding > 0 ? state_padding : state_header;
	return 0;
}

static int collect_begin(struct tree_read *r)
{
	bool name = r->entry.type == TAR_WIRE_GNU_NAME, link = r->entry.type == TAR_WIRE_GNU_LINK;

	if (r->entry.size > (name || link ? sizeof r->name : sizeof r->pax))
		return -E2BIG;
	r->collecting = r->entry.type;
	r->collected = 0;
	r->collect_want = (size_t)r->entry.size;
	r->have_name |= name;
	r->have_link |= link;
	if (name)
		r->name_len = r->collect_want;
	if (link)
		r->link_len = r->collect_want;
	if (r->entry.type == TAR_WIRE_PAX) {
		r->have_pax = true;
		r->pax_len = r->collect_want;
	}
	r->state = r->collect_want > 0 ? state_collect : state_header;
	return 0;
}

/* What the headers before it said of this one. */
static int header_apply(struct tree_read *r)
{
	struct tar_wire_entry *e = &r->entry;
	int q = 0;

	if (r->have_name)
		q = tar_wire_set_name(e, TAR_WIRE_GNU_NAME, r->name, r->name_len);
	if (q == 0 && r->have_link)
		q = tar_wire_set_name(e, TAR_WIRE_GNU_LINK, r->link, r->link_len);
	if (q == 0 && r->have_pax)
		q = tar_wire_apply_pax(e, r->pax, r->pax_len);
	r->have_name = r->have_link = r->have_pax = false;
	return q;
}

static int entry_begin(struct tree_read *r)
{
	int q = header_apply(r);

	if (q < 0)
		return q;
	r->left = r->entry.size;
	r->padding = tar_wire_padding(r->entry.size);
	r->odd = r->entry.sparse == TAR_WIRE_SPARSE_OTHER;
	if (r->entry.sparse == TAR_WIRE_SPARSE_OLD)
		return old_map_begin(r);
	if (r->entry.sparse != TAR_WIRE_SPARSE_PAX)
		return data_begin(r);
	r->map_numbers = r->map_count = r->number = 0;
	r->in_number = false;
	r->state = state_pax_map;
	return 0;
}

static int state_header(struct tree_read *r, const uint8_t **p, size_t *n)
{
	int q;

	if (!fill_block(r, p, n))
		return 0;
	if (++r->n_headers > TREE_READ_ENTRIES_MAX)
		return -E2BIG;
	q = tar_wire_decode(r->block, &r->entry);
	if (q < 0)
		return q;
	if (q == 0) {
		r->state = state_end;
		return r->have_name || r->have_link || r->have_pax ? -EBADMSG : 0;
	}
	r->padding = tar_wire_padding(r->entry.size);
	switch (r->entry.type) {
	case TAR_WIRE_PAX:
	case TAR_WIRE_PAX_GLOBAL:
	case TAR_WIRE_GNU_NAME:
	case TAR_WIRE_GNU_LINK: return collect_begin(r);
	default: return entry_begin(r);
	}
}

int tree_read_push(struct tree_read *r, const void *bytes, size_t n)
{
	const uint8_t *p = bytes;

	while (n > 0) {
		int q = r->state(r, &p, &n);

		if (q < 0)
			return q;
	}
	return 0;
}

bool tree_read_is_whole(const struct tree_read *r)
{
	if (r->state == state_end)
		return true;
	return r->state == state_header && r->have == 0 && !r->have_pax && !r->have_name &&
	       !r->have_link;
}

int tree_read_create(const struct tree_read_ops *ops, void *user, struct tree_read **ret)
{
	struct tree_read *r = calloc(1, sizeof *r);

	if (!r)
		return -ENOMEM;
	r->ops = ops;
	r->user = user;
	r->state = state_header;
	*ret = r;
	return 0;
}

void tree_read_destroy(struct tree_read *r)
{
	if (!r)
		return;
	free(r->map);
	free(r);
}
