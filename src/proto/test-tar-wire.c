#include "unit.h"

#include "cleanup.h"
#include "tar-wire.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static uint8_t head[TAR_WIRE_HEAD_MAX];
static struct tar_wire_entry in, out;

static struct tar_wire_entry *sample(const char *name)
{
	in = (struct tar_wire_entry){ .type = TAR_WIRE_FILE, .mode = 0644, .uid = 1, .gid = 2 };
	in.name_len = strlen(name);
	memcpy(in.name, name, in.name_len);
	return &in;
}

/* Reads back what was written, extended header and all. */
static void read_back(ssize_t n)
{
	static struct tar_wire_entry pax;

	assert_true(n >= TAR_WIRE_BLOCK && n % TAR_WIRE_BLOCK == 0);
	assert_int_equal(tar_wire_decode(head, &pax), 1);
	assert_int_equal(tar_wire_decode(head + n - TAR_WIRE_BLOCK, &out), 1);
	if (pax.type == TAR_WIRE_PAX)
		assert_int_equal(
			tar_wire_apply_pax(&out, (char *)head + TAR_WIRE_BLOCK, pax.size), 0);
	else
		assert_int_equal(n, TAR_WIRE_BLOCK);
}

static void test_round_trip(void **state)
{
	static const int64_t times[][2] = { { 0, 0 }, { 1700000000, 123456789 }, { -1, 0 },
		{ -2, 999999999 }, { 0x1ffffffffLL, 1 }, { 0x200000000LL, 0 },
		{ -(1LL << 40), 5 } };
	static const uint64_t sizes[] = { 0, 1, 077777777777, 0100000000000, INT64_MAX };

	for (size_t i = 0; i < ARRAY_SIZE(times) * ARRAY_SIZE(sizes); i++) {
		struct tar_wire_entry *e = sample("a\nname\x01\xff");

		e->mtime_sec = times[i % ARRAY_SIZE(times)][0];
		e->mtime_nsec = (uint32_t)times[i % ARRAY_SIZE(times)][1];
		e->size = e->real_size = sizes[i / ARRAY_SIZE(times)];
		e->uid = 0xfffffffe;
		read_back(tar_wire_encode(e, head));
		assert_string_equal(out.name, e->name);
		assert_int_equal(out.mtime_sec, e->mtime_sec);
		assert_int_equal(out.mtime_nsec, e->mtime_nsec);
		assert_true(out.size == e->size && out.real_size == e->size);
		assert_int_equal(out.uid, e->uid);
		assert_int_equal(out.gid, e->gid);
	}
}

static void test_names_of_every_length(void **state)
{
	for (size_t n = 1; n <= TAR_WIRE_NAME_MAX; n++) {
		struct tar_wire_entry *e = sample("x");

		memset(e->name, 'n', n);
		memset(e->link, 'l', n);
		e->name[n] = e->link[n] = 0;
		e->name_len = e->link_len = n;
		e->type = TAR_WIRE_SYMLINK;
		read_back(tar_wire_encode(e, head));
		assert_string_equal(out.name, e->name);
		assert_string_equal(out.link, e->link);
	}
	sample("x")->name_len = TAR_WIRE_NAME_MAX + 1;
	assert_int_equal(tar_wire_encode(&in, head), -EINVAL);
}

static void test_sparse(void **state)
{
	struct tar_wire_entry *e = sample("sparse");

	e->sparse = TAR_WIRE_SPARSE_PAX;
	e->size = 1024;
	e->real_size = 1ULL << 40;
	read_back(tar_wire_encode(e, head));
	assert_int_equal(out.sparse, TAR_WIRE_SPARSE_PAX);
	assert_true(out.size == 1024 && out.real_size == 1ULL << 40);
	assert_string_equal(out.name, "sparse");
}

static void resum(uint8_t *block)
{
	unsigned sum = 0;

	memset(block + 148, ' ', 8);
	for (size_t i = 0; i < TAR_WIRE_BLOCK; i++)
		sum += block[i];
	snprintf((char *)block + 148, 8, "%06o", sum);
}

static void test_bad_headers(void **state)
{
	static const struct {
		size_t at;
		const char *bytes;
		size_t len;
	} bad[] = {
		{ 100, "00x0644", 8 },                                           /* mode */
		{ 108, "\xff\xff\xff\xff\xff\xff\xff\xff", 8 },                  /* uid -1 */
		{ 108, "\x80\x00\x00\x01\x00\x00\x00\x00", 8 },                  /* uid 2^32 */
		{ 124, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12 }, /* size -1 */
		{ 124, "\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00", 12 }, /* size 2^63 */
		{ 124, "77777777777-", 12 }, { 136, "9", 1 },                    /* mtime */
	};
	uint8_t *block = head;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		tar_wire_encode(sample("x"), block);
		memcpy(block + bad[i].at, bad[i].bytes, bad[i].len);
		resum(block);
		assert_int_equal(tar_wire_decode(block, &out), -EBADMSG);
	}
	tar_wire_encode(sample("x"), block);
	block[0] ^= 1; /* checksum */
	assert_int_equal(tar_wire_decode(block, &out), -EBADMSG);
	memset(block, 0, TAR_WIRE_BLOCK);
	assert_int_equal(tar_wire_decode(block, &out), 0);
}

static void test_bad_records(void **state)
{
	static const struct {
		const char *text;
		size_t len; /* 0: strlen */
	} bad[] = {
		{ "x" },
		{ "12 path" },
		{ "0 " },
		{ "99 path=a\n" },
		{ "9 path=ab" },
		{ "8 path=\n\n9 a\n" },
		{ "6 path\n" },
		{ "18446744073709551626 path=a\n" },
		{ "-9 path=a\n" },
		{ " 9 path=a\n" },
		{ "10 size=-1\n" },
		{ "9 size=a\n" },
		{ "28 size=9223372036854775808\n" },
		{ "11 mtime=.\n" },
		{ "11 mtime=x\n" },
		{ "13 mtime=1.x\n" },
		{ "20 uid=4294967296\n" },
		{ "11 path=a\0b\n", 12 },
		{ "12 path=a\0b\n", 12 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		sample("x");
		assert_int_equal(tar_wire_apply_pax(&in, bad[i].text,
					 bad[i].len ? bad[i].len : strlen(bad[i].text)),
			-EBADMSG);
	}
	static char record[TAR_WIRE_NAME_MAX + 20];
	int n = snprintf(record, sizeof record, "%d path=", TAR_WIRE_NAME_MAX + 12);

	memset(record + n, 'a', TAR_WIRE_NAME_MAX + 1);
	record[TAR_WIRE_NAME_MAX + 11] = '\n';
	assert_int_equal(tar_wire_apply_pax(sample("x"), record, TAR_WIRE_NAME_MAX + 12), -EBADMSG);
}

/* As GNU tar --sparse --format=gnu writes them. */
static void test_old_sparse(void **state)
{
	struct tar_wire_region map[TAR_WIRE_OLD_EXTEND];
	uint8_t *block = head;
	bool more;

	tar_wire_encode(sample("x"), block);
	block[156] = 'S';
	memcpy(block + 257, "ustar  ", 8);
	memcpy(block + 386, "00000010000\00000000001000", 24);
	memcpy(block + 482,
		"\1"
		"00000100000",
		13);
	resum(block);
	assert_int_equal(tar_wire_decode(block, &out), 1);
	assert_int_equal(out.sparse, TAR_WIRE_SPARSE_OLD);
	assert_true(out.extended && out.real_size == 0100000);
	assert_int_equal(tar_wire_old_map(block, true, map, &more), 1);
	assert_true(more && map[0].offset == 010000 && map[0].length == 01000);
	block[386 + 12] = '9';
	assert_int_equal(tar_wire_old_map(block, true, map, &more), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_names_of_every_length),
		cmocka_unit_test(test_sparse),
		cmocka_unit_test(test_bad_headers),
		cmocka_unit_test(test_bad_records),
		cmocka_unit_test(test_old_sparse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
