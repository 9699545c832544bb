#include "tar-wire.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MODE_MASK   07777
#define NSEC_DIGITS 9
#define ID_MAX      UINT32_MAX

/* Where the fields of a header are. */
enum {
	AT_NAME = 0,
	AT_MODE = 100,
	AT_UID = 108,
	AT_GID = 116,
	AT_SIZE = 124,
	AT_MTIME = 136,
	AT_CHECKSUM = 148,
	AT_TYPE = 156,
	AT_LINK = 157,
	AT_MAGIC = 257,
	AT_PREFIX = 345,
	AT_OLD_MAP = 386, /* GNU, and only in 'S' */
	AT_OLD_EXTENDED = 482,
	AT_OLD_REAL_SIZE = 483,
	AT_EXTEND_MORE = 504, /* in a block that continues a map */
	NAME_BYTES = 100,
	PREFIX_BYTES = 155,
	NUMBER_BYTES = 12, /* of sizes and times; the others have 8 */
};

/* ---- reading ---- */

/* Base 256, for what octal digits do not reach: two's complement, big endian, the top bit set. */
static int number_binary(const uint8_t *p, size_t n, int64_t *ret)
{
	int64_t v = (int64_t)(p[0] & 0x7f) - (p[0] & 0x40 ? 0x80 : 0);

	for (size_t i = 1; i < n; i++)
		if (__builtin_mul_overflow(v, 256, &v) || __builtin_add_overflow(v, p[i], &v))
			return -EBADMSG;
	*ret = v;
	return 0;
}

static int number_signed(const uint8_t *p, size_t n, int64_t *ret)
{
	int64_t v = 0;
	size_t i = 0;

	if (p[0] & 0x80)
		return number_binary(p, n, ret);
	while (i < n && p[i] == ' ')
		i++;
	for (; i < n && p[i] >= '0' && p[i] <= '7'; i++)
		if (__builtin_mul_overflow(v, 8, &v) || __builtin_add_overflow(v, p[i] - '0', &v))
			return -EBADMSG;
	for (; i < n; i++)
		if (p[i] != ' ' && p[i] != 0)
			return -EBADMSG;
	*ret = v;
	return 0;
}

static int number(const uint8_t *p, size_t n, uint64_t max, uint64_t *ret)
{
	int64_t v;
	int r = number_signed(p, n, &v);

	if (r < 0)
		return r;
	if (v < 0 || (uint64_t)v > max)
		return -EBADMSG;
	*ret = (uint64_t)v;
	return 0;
}

static int number32(const uint8_t *p, uint32_t *ret)
{
	uint64_t v;
	int r = number(p, 8, ID_MAX, &v);

	if (r == 0)
		*ret = (uint32_t)v;
	return r;
}

static bool checksum_is_right(const uint8_t *block)
{
	int64_t as_unsigned = 0, as_signed = 0, want; /* old tars summed signed characters */

	for (size_t i = 0; i < TAR_WIRE_BLOCK; i++) {
		uint8_t c = i >= AT_CHECKSUM && i < AT_CHECKSUM + 8 ? ' ' : block[i];

		as_unsigned += c;
		as_signed += (int8_t)c;
	}
	return number_signed(block + AT_CHECKSUM, 8, &want) == 0 &&
	       (want == as_unsigned || want == as_signed);
}

static bool block_is_zero(const uint8_t *block)
{
	for (size_t i = 0; i < TAR_WIRE_BLOCK; i++)
		if (block[i])
			return false;
	return true;
}

static void copy_name(char *to, size_t *ret_len, const uint8_t *from, size_t max)
{
	size_t n = strnlen((const char *)from, max);

	memcpy(to + *ret_len, from, n);
	*ret_len += n;
	to[*ret_len] = 0;
}

static void decode_names(const uint8_t *block, struct tar_wire_entry *e)
{
	e->name_len = e->link_len = 0;
	/* GNU's magic is "ustar  ", and it has other things in the place of the prefix */
	if (memcmp(block + AT_MAGIC, "ustar", 6) == 0 && block[AT_PREFIX]) {
		copy_name(e->name, &e->name_len, block + AT_PREFIX, PREFIX_BYTES);
		e->name[e->name_len++] = '/';
	}
	copy_name(e->name, &e->name_len, block + AT_NAME, NAME_BYTES);
	copy_name(e->link, &e->link_len, block + AT_LINK, NAME_BYTES);
}

static void decode_type(const uint8_t *block, struct tar_wire_entry *e)
{
	e->type = block[AT_TYPE];
	if (e->type == 0 || e->type == '7')
		e->type = TAR_WIRE_FILE;
	/* version 7 had no type for directories */
	if (e->type == TAR_WIRE_FILE && e->name_len > 0 && e->name[e->name_len - 1] == '/')
		e->type = TAR_WIRE_DIRECTORY;
	if (e->type == TAR_WIRE_LINK)
		e->size = 0; /* some tars give the file's size, and no data */
	e->sparse = TAR_WIRE_DENSE;
}

int tar_wire_decode(const uint8_t block[static TAR_WIRE_BLOCK], struct tar_wire_entry *ret)
{
	if (block_is_zero(block))
		return 0;
	if (!checksum_is_right(block))
		return -EBADMSG;
	ret->mtime_nsec = 0;
	ret->extended = false;
	if (number32(block + AT_MODE, &ret->mode) < 0 || number32(block + AT_UID, &ret->uid) < 0 ||
		number32(block + AT_GID, &ret->gid) < 0 ||
		number(block + AT_SIZE, NUMBER_BYTES, TAR_WIRE_SIZE_MAX, &ret->size) < 0 ||
		number_signed(block + AT_MTIME, NUMBER_BYTES, &ret->mtime_sec) < 0)
		return -EBADMSG;
	ret->mode &= MODE_MASK;
	decode_names(block, ret);
	decode_type(block, ret);
	ret->real_size = ret->size;
	if (ret->type == 'S') {
		ret->type = TAR_WIRE_FILE;
		ret->sparse = TAR_WIRE_SPARSE_OLD;
		ret->extended = block[AT_OLD_EXTENDED] != 0;
		if (number(block + AT_OLD_REAL_SIZE, NUMBER_BYTES, TAR_WIRE_SIZE_MAX,
			    &ret->real_size) < 0)
			return -EBADMSG;
	}
	return 1;
}

int tar_wire_old_map(const uint8_t block[static TAR_WIRE_BLOCK], bool first,
	struct tar_wire_region *ret, bool *ret_more)
{
	const uint8_t *p = block + (first ? AT_OLD_MAP : 0);
	int max = first ? TAR_WIRE_OLD_MAP : TAR_WIRE_OLD_EXTEND, n;

	for (n = 0; n < max && p[NUMBER_BYTES] != 0; n++, p += 2 * NUMBER_BYTES)
		if (number(p, NUMBER_BYTES, TAR_WIRE_SIZE_MAX, &ret[n].offset) < 0 ||
			number(p + NUMBER_BYTES, NUMBER_BYTES, TAR_WIRE_SIZE_MAX, &ret[n].length) <
				0)
			return -EBADMSG;
	*ret_more = block[first ? AT_OLD_EXTENDED : AT_EXTEND_MORE] != 0;
	return n;
}

static int set_text(char *to, size_t *ret_len, const char *value, size_t len)
{
	if (len > TAR_WIRE_NAME_MAX || memchr(value, 0, len))
		return -EBADMSG;
	memcpy(to, value, len);
	to[len] = 0;
	*ret_len = len;
	return 0;
}

int tar_wire_set_name(struct tar_wire_entry *e, uint8_t type, const char *data, size_t len)
{
	len = strnlen(data, len);
	return type == TAR_WIRE_GNU_LINK ? set_text(e->link, &e->link_len, data, len)
					 : set_text(e->name, &e->name_len, data, len);
}

/* ---- PAX records ---- */

static int decimal(const char *s, size_t len, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (len == 0)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++)
		if (s[i] < '0' || s[i] > '9' || __builtin_mul_overflow(v, 10, &v) ||
			__builtin_add_overflow(v, (uint64_t)(s[i] - '0'), &v) || v > max)
			return -EBADMSG;
	*ret = v;
	return 0;
}

/* "-12.345": twelve seconds and a bit before 1970; the fraction counts downwards there. */
static int pax_time(struct tar_wire_entry *e, const char *s, size_t len)
{
	bool negative = len > 0 && s[0] == '-';
	const char *dot;
	uint64_t sec, nsec = 0;
	size_t digits;

	s += negative;
	len -= negative;
	dot = memchr(s, '.', len);
	if (decimal(s, dot ? (size_t)(dot - s) : len, INT64_MAX - 1, &sec) < 0)
		return -EBADMSG;
	digits = dot ? len - (size_t)(dot + 1 - s) : 0;
	for (size_t i = 0; i < NSEC_DIGITS; i++) {
		char c = i < digits ? dot[1 + i] : '0';

		if (c < '0' || c > '9')
			return -EBADMSG;
		nsec = nsec * 10 + (uint64_t)(c - '0');
	}
	e->mtime_sec = negative ? -(int64_t)sec : (int64_t)sec;
	if (negative && nsec > 0) {
		e->mtime_sec--;
		nsec = 1000000000 - nsec;
	}
	e->mtime_nsec = (uint32_t)nsec;
	return 0;
}

static int pax_id(uint32_t *ret, const char *s, size_t len)
{
	uint64_t v;
	int r = decimal(s, len, ID_MAX, &v);

	if (r == 0)
		*ret = (uint32_t)v;
	return r;
}

static bool key_is(const char *key, size_t len, const char *want)
{
	return len == strlen(want) && memcmp(key, want, len) == 0;
}

static int pax_sparse(
	struct tar_wire_entry *e, const char *key, size_t key_len, const char *v, size_t len)
{
	if (e->sparse == TAR_WIRE_DENSE)
		e->sparse = TAR_WIRE_SPARSE_OTHER;
	if (key_is(key, key_len, "name"))
		return set_text(e->name, &e->name_len, v, len);
	if (key_is(key, key_len, "realsize"))
		return decimal(v, len, TAR_WIRE_SIZE_MAX, &e->real_size);
	if (key_is(key, key_len, "major") && len == 1 && *v == '1')
		e->sparse = TAR_WIRE_SPARSE_PAX;
	return 0;
}

static int pax_record(
	struct tar_wire_entry *e, const char *key, size_t key_len, const char *v, size_t len)
{
	static const char sparse[] = "GNU.sparse.";

	if (key_len > strlen(sparse) && memcmp(key, sparse, strlen(sparse)) == 0)
		return pax_sparse(e, key + strlen(sparse), key_len - strlen(sparse), v, len);
	if (len == 0)
		return 0; /* takes back what a global header said; those are ignored */
	if (key_is(key, key_len, "path"))
		return set_text(e->name, &e->name_len, v, len);
	if (key_is(key, key_len, "linkpath"))
		return set_text(e->link, &e->link_len, v, len);
	if (key_is(key, key_len, "mtime"))
		return pax_time(e, v, len);
	if (key_is(key, key_len, "uid"))
		return pax_id(&e->uid, v, len);
	if (key_is(key, key_len, "gid"))
		return pax_id(&e->gid, v, len);
	if (key_is(key, key_len, "size"))
		return decimal(v, len, TAR_WIRE_SIZE_MAX, &e->size);
	return 0;
}

/* Takes the record at the start: "LENGTH KEY=VALUE\n". Returns its length. */
static ssize_t pax_next(struct tar_wire_entry *e, const char *p, size_t left)
{
	const char *space = memchr(p, ' ', left), *equals;
	uint64_t len;
	int r;

	if (!space || decimal(p, (size_t)(space - p), left, &len) < 0)
		return -EBADMSG;
	if (len < (size_t)(space - p) + 3 || p[len - 1] != '\n')
		return -EBADMSG;
	equals = memchr(space + 1, '=', len - (size_t)(space + 1 - p));
	if (!equals)
		return -EBADMSG;
	r = pax_record(e, space + 1, (size_t)(equals - space - 1), equals + 1,
		len - (size_t)(equals + 1 - p) - 1);
	return r < 0 ? r : (ssize_t)len;
}

int tar_wire_apply_pax(struct tar_wire_entry *e, const char *records, size_t len)
{
	uint8_t sparse = e->sparse;
	uint64_t real_size = e->real_size;

	e->sparse = TAR_WIRE_DENSE;
	for (size_t at = 0; at < len;) {
		ssize_t n = pax_next(e, records + at, len - at);

		if (n < 0)
			return (int)n;
		at += (size_t)n;
	}
	if (e->type == TAR_WIRE_LINK)
		e->size = 0;
	if (e->sparse == TAR_WIRE_DENSE) {
		e->sparse = sparse;
		/* an old sparse header's own real size stands */
		e->real_size = sparse == TAR_WIRE_DENSE ? e->size : real_size;
	} else if (e->type != TAR_WIRE_FILE || sparse != TAR_WIRE_DENSE) {
		return -EBADMSG;
	}
	return 0;
}

/* ---- writing ---- */

struct pax_out {
	char *p;
	size_t len, size;
	bool full;
};

static size_t digits_of(size_t n)
{
	size_t d = 1;

	for (; n >= 10; n /= 10)
		d++;
	return d;
}

/* The length counts its own digits. */
static void pax_put(struct pax_out *o, const char *key, const char *value, size_t len)
{
	size_t rest = strlen(key) + len + 3, total = rest + digits_of(rest);

	total = rest + digits_of(total);
	if (total > o->size - o->len) {
		o->full = true;
		return;
	}
	o->len += (size_t)snprintf(o->p + o->len, o->size - o->len, "%zu %s=", total, key);
	memcpy(o->p + o->len, value, len);
	o->len += len;
	o->p[o->len++] = '\n';
}

static void pax_put_number(struct pax_out *o, const char *key, uint64_t v)
{
	char text[24];
	int n = snprintf(text, sizeof text, "%" PRIu64, v);

	pax_put(o, key, text, (size_t)n);
}

static void pax_put_time(struct pax_out *o, const struct tar_wire_entry *e)
{
	int64_t sec = e->mtime_sec;
	uint32_t nsec = e->mtime_nsec;
	bool negative = sec < 0;
	char text[48];
	int n;

	if (negative && nsec > 0) {
		sec++;
		nsec = 1000000000 - nsec;
	}
	n = snprintf(text, sizeof text, "%s%" PRIu64, negative ? "-" : "",
		negative ? -(uint64_t)sec : (uint64_t)sec);
	if (nsec > 0)
		n += snprintf(text + n, sizeof text - (size_t)n, ".%09" PRIu32, nsec);
	pax_put(o, "mtime", text, (size_t)n);
}

#define OCTAL7_MAX  07777777
#define OCTAL11_MAX 077777777777

static void pax_records(
	struct pax_out *o, const struct tar_wire_entry *e, const char *name, size_t name_len)
{
	if (e->sparse == TAR_WIRE_SPARSE_PAX) {
		pax_put(o, "GNU.sparse.major", "1", 1);
		pax_put(o, "GNU.sparse.minor", "0", 1);
		pax_put(o, "GNU.sparse.name", name, name_len);
		pax_put_number(o, "GNU.sparse.realsize", e->real_size);
	} else if (name_len > NAME_BYTES) {
		pax_put(o, "path", name, name_len);
	}
	if (e->link_len > NAME_BYTES)
		pax_put(o, "linkpath", e->link, e->link_len);
	if (e->uid > OCTAL7_MAX)
		pax_put_number(o, "uid", e->uid);
	if (e->gid > OCTAL7_MAX)
		pax_put_number(o, "gid", e->gid);
	if (e->size > OCTAL11_MAX)
		pax_put_number(o, "size", e->size);
	if (e->mtime_nsec > 0 || e->mtime_sec < 0 || e->mtime_sec > (int64_t)OCTAL11_MAX)
		pax_put_time(o, e);
}

static void put_octal(uint8_t *p, size_t n, uint64_t v)
{
	p[--n] = 0;
	while (n > 0) {
		p[--n] = (uint8_t)('0' + (v & 7));
		v >>= 3;
	}
}

static void put_text(uint8_t *p, const char *s, size_t len)
{
	memcpy(p, s, len < NAME_BYTES ? len : NAME_BYTES);
}

static void put_header(uint8_t *block, const struct tar_wire_entry *e, const char *name,
	size_t name_len, uint8_t type, uint64_t size)
{
	uint32_t sum = 0;

	memset(block, 0, TAR_WIRE_BLOCK);
	put_text(block + AT_NAME, name, name_len);
	put_octal(block + AT_MODE, 8, e->mode & MODE_MASK);
	put_octal(block + AT_UID, 8, e->uid > OCTAL7_MAX ? 0 : e->uid);
	put_octal(block + AT_GID, 8, e->gid > OCTAL7_MAX ? 0 : e->gid);
	put_octal(block + AT_SIZE, NUMBER_BYTES, size > OCTAL11_MAX ? 0 : size);
	put_octal(block + AT_MTIME, NUMBER_BYTES,
		e->mtime_sec < 0 || e->mtime_sec > (int64_t)OCTAL11_MAX ? 0
									: (uint64_t)e->mtime_sec);
	block[AT_TYPE] = type;
	memcpy(block + AT_MAGIC, "ustar\00000", 8);
	memset(block + AT_CHECKSUM, ' ', 8);
	if (type == TAR_WIRE_LINK || type == TAR_WIRE_SYMLINK)
		put_text(block + AT_LINK, e->link, e->link_len);
	for (size_t i = 0; i < TAR_WIRE_BLOCK; i++)
		sum += block[i];
	put_octal(block + AT_CHECKSUM, 7, sum);
}

ssize_t tar_wire_encode(const struct tar_wire_entry *e, uint8_t ret[static TAR_WIRE_HEAD_MAX])
{
	static const char pax_name[] = "PaxHeaders/uvms";
	char name[TAR_WIRE_NAME_MAX + 2];
	size_t name_len = e->name_len, at = 0;
	struct pax_out o = { .p = (char *)ret + TAR_WIRE_BLOCK,
		.size = TAR_WIRE_HEAD_MAX - 3 * TAR_WIRE_BLOCK };

	if (name_len == 0 || name_len > TAR_WIRE_NAME_MAX || e->link_len > TAR_WIRE_NAME_MAX ||
		e->size > TAR_WIRE_SIZE_MAX || e->mtime_nsec >= 1000000000)
		return -EINVAL;
	memcpy(name, e->name, name_len);
	if (e->type == TAR_WIRE_DIRECTORY && name[name_len - 1] != '/')
		name[name_len++] = '/';
	if (name_len > TAR_WIRE_NAME_MAX)
		return -EINVAL;

	pax_records(&o, e, name, name_len);
	if (o.full)
		return -EINVAL;
	if (o.len > 0) {
		uint32_t pad = tar_wire_padding(o.len);

		put_header(ret, e, pax_name, strlen(pax_name), TAR_WIRE_PAX, o.len);
		memset(o.p + o.len, 0, pad);
		at = TAR_WIRE_BLOCK + o.len + pad;
	}
	put_header(ret + at, e, name, name_len, e->type, e->size);
	return (ssize_t)at + TAR_WIRE_BLOCK;
}
