#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "config.h"
#include "decompress.h"
#include "kernel-file.h"
#include "unit.h"

#if HAVE_LZ4
#include <lz4.h>
#endif
#if HAVE_LZMA
#include <lzma.h>
#endif
#if HAVE_ZSTD
#include <zstd.h>
#endif

#define ELF_LEN 40000

/* A vmlinux with one note; TYPE 18 is the PVH entry. */
static void make_elf(char elf[static ELF_LEN], uint32_t type)
{
	Elf64_Ehdr e = { .e_phoff = sizeof e, .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 2 };
	Elf64_Phdr p[2] = { { .p_type = PT_LOAD },
		{ .p_type = PT_NOTE, .p_offset = 512, .p_filesz = 24 + 24 } };
	Elf64_Nhdr other = { 4, 8, 6 }, note = { 4, 8, type };

	for (int i = 0; i < ELF_LEN; i++)
		elf[i] = (char)(i * 7 + i / 97);
	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	memcpy(elf, &e, sizeof e);
	memcpy(elf + sizeof e, p, sizeof p);
	memcpy(elf + 512, &other, sizeof other);
	memcpy(elf + 524, "Xen", 4);
	memcpy(elf + 536, &note, sizeof note);
	memcpy(elf + 548, "Xen", 4);
	strcpy(elf + 1000, "Linux version 6.1.0-test (x@y) #1");
}

static size_t make_bzimage(char *out, const char *payload, size_t len)
{
	uint32_t offset = 100, size = (uint32_t)len;
	uint16_t version = 0x300, protocol = 0x20f;
	size_t setup = 3 * 512;

	memset(out, 0, setup + offset);
	out[0x1f1] = 2;
	memcpy(out + 0x202, "HdrS", 4);
	memcpy(out + 0x206, &protocol, 2);
	memcpy(out + 0x20e, &version, 2);
	memcpy(out + 0x248, &offset, 4);
	memcpy(out + 0x24c, &size, 4);
	strcpy(out + 0x500, "6.1.0-test (builder@host) #1 SMP");
	memcpy(out + setup + offset, payload, len);
	strcpy(out + setup + offset + len, "behind");
	return setup + offset + len + 7;
}

static void check_unpacked(const char *packed, size_t len, bool pvh)
{
	static char elf[ELF_LEN], image[2 * ELF_LEN + 4096];
	struct kernel_file k;
	size_t n = make_bzimage(image, packed, len);

	make_elf(elf, 18);
	assert_int_equal(kernel_file_read(image, n, &k), 0);
	assert_string_equal(k.release, "6.1.0-test");
	assert_int_equal(k.is_elf, pvh);
	if (pvh) {
		assert_int_equal(k.len, ELF_LEN);
		assert_memory_equal(k.data, elf, ELF_LEN);
	} else {
		assert_int_equal(k.len, n);
		assert_memory_equal(k.data, image, n);
		assert_string_not_equal(k.note, "");
	}
	kernel_file_finish(&k);
}

#if HAVE_LZ4
static size_t pack_lz4(const char *elf, char *out, size_t size)
{
	uint32_t magic = 0x184c2102, total = ELF_LEN;
	int n = LZ4_compress_default(elf, out + 8, ELF_LEN, (int)size - 12);

	assert_true(n > 0);
	memcpy(out, &magic, 4);
	memcpy(out + 4, &n, 4);
	memcpy(out + 8 + n, &total, 4); /* as the kernel's build appends it */
	return (size_t)n + 12;
}

static void unpacks_lz4(void **state)
{
	static char elf[ELF_LEN], packed[2 * ELF_LEN];

	make_elf(elf, 18);
	check_unpacked(packed, pack_lz4(elf, packed, sizeof packed), true);
}

static void keeps_what_has_no_pvh_entry(void **state)
{
	static char elf[ELF_LEN], packed[2 * ELF_LEN];

	make_elf(elf, 17);
	check_unpacked(packed, pack_lz4(elf, packed, sizeof packed), false);
}

/* Every cut and some flipped bytes: an error, never more. */
static void survives_damage(void **state)
{
	static char elf[ELF_LEN], packed[2 * ELF_LEN];
	size_t len;

	make_elf(elf, 18);
	len = pack_lz4(elf, packed, sizeof packed);
	for (size_t cut = 0; cut < len; cut += 61) {
		CLEANUP_FREE char *copy = malloc(cut + 1), *out = NULL;
		size_t n;

		memcpy(copy, packed, cut);
		(void)decompress(copy, cut, ELF_LEN, &out, &n);
	}
	for (size_t at = 0; at < len; at += 31) {
		CLEANUP_FREE char *out = NULL;
		size_t n;

		packed[at] ^= 0x55;
		(void)decompress(packed, len, 4 * ELF_LEN, &out, &n);
		packed[at] ^= 0x55;
	}
}
#endif

#if HAVE_ZSTD
static void unpacks_zstd(void **state)
{
	static char elf[ELF_LEN], packed[2 * ELF_LEN];
	size_t n;

	make_elf(elf, 18);
	n = ZSTD_compress(packed, sizeof packed, elf, ELF_LEN, 3);
	assert_false(ZSTD_isError(n));
	check_unpacked(packed, n + 4, true);
	check_unpacked(packed, n / 2, false);
}
#endif

#if HAVE_LZMA
static void unpacks_xz(void **state)
{
	static char elf[ELF_LEN], packed[2 * ELF_LEN];
	CLEANUP_FREE char *out = NULL;
	size_t n = 0, len;

	make_elf(elf, 18);
	assert_int_equal(lzma_easy_buffer_encode(1, LZMA_CHECK_CRC32, NULL, (void *)elf, ELF_LEN,
				 (void *)packed, &n, sizeof packed),
		LZMA_OK);
	check_unpacked(packed, n + 4, true);
	check_unpacked(packed, n / 2, false);
	assert_int_equal(decompress(packed, n, ELF_LEN / 2, &out, &len), -EFBIG);
}
#endif

static void keeps_unknown_payloads(void **state)
{
	check_unpacked("what is this", 12, false);
	check_unpacked("\x1f\x8b\x08\0\0\0", 6, false);
}

static void takes_elf_as_it_is(void **state)
{
	static char elf[ELF_LEN];
	struct kernel_file k;

	make_elf(elf, 18);
	assert_int_equal(kernel_file_read(elf, ELF_LEN, &k), 0);
	assert_true(k.is_elf);
	assert_string_equal(k.release, "6.1.0-test");
	kernel_file_finish(&k);
	make_elf(elf, 17);
	assert_int_equal(kernel_file_read(elf, ELF_LEN, &k), -ENOEXEC);
}

static void refuses_the_rest(void **state)
{
	static char elf[ELF_LEN], image[4096];
	struct kernel_file k;
	uint32_t huge = 0xfffffff0;

	assert_int_equal(kernel_file_read("", 0, &k), -ENOEXEC);
	assert_int_equal(kernel_file_read("text", 4, &k), -ENOEXEC);
	memset(image, 0, sizeof image);
	assert_int_equal(kernel_file_read(image, sizeof image, &k), -ENOEXEC);
	make_bzimage(image, "x", 1);
	memcpy(image + 0x248, &huge, 4);
	assert_int_equal(kernel_file_read(image, sizeof image, &k), -ENOEXEC);
	make_bzimage(image, "x", 1);
	memcpy(image + 0x24c, &huge, 4);
	assert_int_equal(kernel_file_read(image, sizeof image, &k), -ENOEXEC);
	make_elf(elf, 18);
	for (size_t len = 0; len < 600; len++) {
		CLEANUP_FREE char *copy = malloc(len + 1);

		memcpy(copy, elf, len);
		(void)kernel_file_has_pvh(copy, len);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#if HAVE_LZ4
		cmocka_unit_test(unpacks_lz4),
		cmocka_unit_test(keeps_what_has_no_pvh_entry),
		cmocka_unit_test(survives_damage),
#endif
#if HAVE_ZSTD
		cmocka_unit_test(unpacks_zstd),
#endif
#if HAVE_LZMA
		cmocka_unit_test(unpacks_xz),
#endif
		cmocka_unit_test(keeps_unknown_payloads),
		cmocka_unit_test(takes_elf_as_it_is),
		cmocka_unit_test(refuses_the_rest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
