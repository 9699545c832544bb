#include "doctor-package.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "cleanup.h"
#include "file.h"
#include "str.h"

enum family {
	FAMILY_DEBIAN,
	FAMILY_FEDORA,
	FAMILY_ARCH,
	FAMILY_NIX,
	FAMILIES,
};

static const struct {
	const char *program;
	const char *package[FAMILIES];
} packages[] = {
	{ "qemu-system-x86_64",
		{ "qemu-system-x86", "qemu-system-x86-core", "qemu-base", "qemu" } },
	{ "mkfs.erofs", { "erofs-utils", "erofs-utils", "erofs-utils", "erofs-utils" } },
	{ "mmdebstrap", { "mmdebstrap", "mmdebstrap", "mmdebstrap", "mmdebstrap" } },
	{ "newuidmap", { "uidmap", "shadow-utils", "shadow", "shadow" } },
	{ "mkfs.ext4", { "e2fsprogs", "e2fsprogs", "e2fsprogs", "e2fsprogs" } },
	{ "umoci", { "umoci", "umoci", "umoci", "umoci" } },
	{ "skopeo", { "skopeo", "skopeo", "skopeo", "skopeo" } },
	{ "passt", { "passt", "passt", "passt", "passt" } },
	{ "virtiofsd", { "virtiofsd", "virtiofsd", "virtiofsd", "virtiofsd" } },
};

static const struct {
	const char *id; /* ID or a word of ID_LIKE in os-release */
	enum family family;
	const char *command;
} families[] = {
	{ "debian", FAMILY_DEBIAN, "apt install" },
	{ "ubuntu", FAMILY_DEBIAN, "apt install" },
	{ "fedora", FAMILY_FEDORA, "dnf install" },
	{ "rhel", FAMILY_FEDORA, "dnf install" },
	{ "arch", FAMILY_ARCH, "pacman -S" },
	{ "nixos", FAMILY_NIX, "nix profile install nixpkgs#" },
};

/* Whether the line KEY=… of TEXT has WORD, between quotes or spaces. */
static bool os_release_has(const char *text, const char *key, const char *word)
{
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *p = line + strlen(key);

		if (!str_has_prefix(line, key) || *p != '=')
			continue;
		for (p++; *p && *p != '\n';) {
			size_t len = strcspn(p, " \"'\n");

			if (len == strlen(word) && strncmp(p, word, len) == 0)
				return true;
			p += len;
			p += *p && *p != '\n';
		}
	}
	return false;
}

/* The index into families[], or -1. ID goes before ID_LIKE. */
static int find_family(const char *os_release)
{
	static const char *const keys[] = { "ID", "ID_LIKE" };

	for (size_t k = 0; os_release && k < ARRAY_SIZE(keys); k++) {
		for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
			if (os_release_has(os_release, keys[k], families[i].id))
				return (int)i;
		}
	}
	return -1;
}

static const char *find_package(const char *program, enum family family)
{
	for (size_t i = 0; i < ARRAY_SIZE(packages); i++) {
		if (str_eq(packages[i].program, program))
			return packages[i].package[family];
	}
	return program;
}

char *doctor_package_command(const char *program, const char *os_release)
{
	int i = find_family(os_release);
	const char *package;

	if (i < 0)
		return str_printf("install %s with your package manager (Debian calls it %s)",
			program, find_package(program, FAMILY_DEBIAN));
	package = find_package(program, families[i].family);
	return str_printf("%s%s%s", families[i].command,
		families[i].family == FAMILY_NIX ? "" : " ", package);
}

char *doctor_package_remedy(const char *program)
{
	CLEANUP_FREE char *text = NULL;

	/* -errno leaves NULL: an unknown distribution */
	(void)file_read_at(AT_FDCWD, "/usr/lib/os-release", 16384, &text, NULL);
	if (!text)
		(void)file_read_at(AT_FDCWD, "/etc/os-release", 16384, &text, NULL);
	return doctor_package_command(program, text);
}
