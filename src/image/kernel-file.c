#include "kernel-file.h"

#include <elf.h>
#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "decompress.h"

#define KERNEL_FILE_MAX (1ULL << 30) /* bytes of vmlinux */
#define PVH_NOTE        18           /* XEN_ELFNOTE_PHYS32_ENTRY, in notes named "Xen" */

/* Offsets in a bzImage's setup header */
#define SETUP_SECTS    0x1f1
#define SETUP_MAGIC    0x202 /* "HdrS" */
#define SETUP_PROTOCOL 0x206
#define SETUP_VERSION  0x20e /* a string, at 0x200 further */
#define SETUP_PAYLOAD  0x248 /* offset and length, protocol 2.08 */
#define SETUP_END      0x250

static uint16_t u16(const char *p)
{
	uint16_t v;

	memcpy(&v, p, sizeof v);
	return le16toh(v);
}

static uint32_t u32(const char *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof v);
	return le32toh(v);
}

static bool notes_have_pvh(const char *notes, size_t len)
{
	size_t at = 0;

	while (len - at >= sizeof(Elf64_Nhdr)) {
		size_t name = u32(notes + at), desc = u32(notes + at + 4);
		size_t padded = ((name + 3) & ~(size_t)3) + ((desc + 3) & ~(size_t)3);

		if (name > len || desc > len || padded > len - at - sizeof(Elf64_Nhdr))
			return false;
		if (u32(notes + at + 8) == PVH_NOTE && name == 4 &&
			memcmp(notes + at + sizeof(Elf64_Nhdr), "Xen", 4) == 0)
			return true;
		at += sizeof(Elf64_Nhdr) + padded;
	}
	return false;
}

bool kernel_file_has_pvh(const char *elf, size_t len)
{
	Elf64_Ehdr e;

	if (len < sizeof e)
		return false;
	memcpy(&e, elf, sizeof e);
	if (memcmp(e.e_ident, ELFMAG, SELFMAG) != 0 || e.e_ident[EI_CLASS] != ELFCLASS64 ||
		e.e_phentsize != sizeof(Elf64_Phdr) || e.e_phoff > len)
		return false;
	for (size_t i = 0; i < e.e_phnum; i++) {
		Elf64_Phdr p;

		if (len - e.e_phoff < (i + 1) * sizeof p)
			return false;
		memcpy(&p, elf + e.e_phoff + i * sizeof p, sizeof p);
		if (p.p_type == PT_NOTE && p.p_offset <= len && p.p_filesz <= len - p.p_offset &&
			notes_have_pvh(elf + p.p_offset, p.p_filesz))
			return true;
	}
	return false;
}

/* "6.1.0-56-cloud-amd64 (debian-kernel@…": the first word. */
static void take_release(struct kernel_file *k, const char *text, size_t len)
{
	size_t n = 0;

	while (n < len && n < KERNEL_FILE_RELEASE_MAX && text[n] > ' ' && text[n] < 0x7f &&
		text[n] != '/')
		n++;
	memcpy(k->release, text, n);
	k->release[n] = 0;
}

static int take_copy(struct kernel_file *k, const char *data, size_t len)
{
	k->data = malloc(len);
	if (!k->data)
		return -ENOMEM;
	memcpy(k->data, data, len);
	k->len = len;
	return 0;
}

static int read_elf(const char *data, size_t len, struct kernel_file *k)
{
	static const char banner[] = "Linux version ";
	const char *version = memmem(data, len, banner, sizeof banner - 1);

	if (!kernel_file_has_pvh(data, len))
		return -ENOEXEC;
	if (version)
		take_release(k, version + sizeof banner - 1,
			len - (size_t)(version - data) - (sizeof banner - 1));
	k->is_elf = true;
	return take_copy(k, data, len);
}

/* Borrowed from DATA; -ENOEXEC: no bzImage of a protocol that says where it is. */
static int find_payload(const char *data, size_t len, const char **ret, size_t *ret_len)
{
	size_t setup, offset, size;

	if (len < SETUP_END || memcmp(data + SETUP_MAGIC, "HdrS", 4) != 0 ||
		u16(data + SETUP_PROTOCOL) < 0x208)
		return -ENOEXEC;
	setup = (unsigned char)data[SETUP_SECTS];
	setup = ((setup ? setup : 4) + 1) * 512;
	offset = u32(data + SETUP_PAYLOAD);
	size = u32(data + SETUP_PAYLOAD + 4);
	if (setup > len || offset > len - setup || size > len - setup - offset)
		return -ENOEXEC;
	*ret = data + setup + offset;
	*ret_len = size;
	return 0;
}

static void read_bzimage_release(const char *data, size_t len, struct kernel_file *k)
{
	size_t at = (size_t)u16(data + SETUP_VERSION) + 0x200;

	if (at > 0x200 && at < len)
		take_release(k, data + at, len - at);
}

/* The ELF file inside, when there is one that a VMM can enter. */
static int unpack(const char *payload, size_t len, struct kernel_file *k)
{
	const char *format = decompress_format(payload, len);
	CLEANUP_FREE char *elf = NULL;
	size_t elf_len;
	int r;

	r = decompress(payload, len, KERNEL_FILE_MAX, &elf, &elf_len);
	if (r == -ENOMEM)
		return r;
	if (r < 0) {
		snprintf(k->note, sizeof k->note, "its payload (%s) cannot be read: %s",
			format ? format : "unknown format", strerror(-r));
		return 0;
	}
	if (!kernel_file_has_pvh(elf, elf_len)) {
		snprintf(k->note, sizeof k->note, "it has no PVH entry (CONFIG_PVH)");
		return 0;
	}
	k->data = TAKE_PTR(elf);
	k->len = elf_len;
	k->is_elf = true;
	return 0;
}

int kernel_file_read(const char *data, size_t len, struct kernel_file *ret)
{
	CLEANUP(kernel_file_finish) struct kernel_file k = { 0 };
	const char *payload;
	size_t payload_len;
	int r;

	if (len >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0) {
		r = read_elf(data, len, &k);
	} else {
		r = find_payload(data, len, &payload, &payload_len);
		if (r < 0)
			return r;
		read_bzimage_release(data, len, &k);
		r = unpack(payload, payload_len, &k);
		if (r == 0 && !k.is_elf)
			r = take_copy(&k, data, len);
	}
	if (r < 0)
		return r;
	*ret = k;
	k.data = NULL;
	return 0;
}

void kernel_file_finish(struct kernel_file *k)
{
	free(k->data);
	k->data = NULL;
}
