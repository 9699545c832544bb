#include "vm-virtiofsd.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "path.h"
#include "str.h"

/* Debian 13 and Fedora; Arch; Debian 12. */
static const char *const places[] = { "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd",
	"/usr/lib/qemu/virtiofsd" };

static const char *const names[] = {
	[VM_VIRTIOFSD_UNKNOWN] = "unknown",
	[VM_VIRTIOFSD_QEMU] = "qemu",
	[VM_VIRTIOFSD_RUST] = "rust",
};

static int copy(const char *path, char **ret)
{
	*ret = strdup(path);
	return *ret ? 0 : -ENOMEM;
}

int vm_virtiofsd_find(char **ret)
{
	const char *override = getenv(VM_VIRTIOFSD_ENV);
	int r;

	if (override && *override)
		return access(override, X_OK) == 0 ? copy(override, ret) : -ENOENT;
	r = path_find_program("virtiofsd", ret);
	for (size_t i = 0; r == -ENOENT && i < ARRAY_SIZE(places); i++) {
		if (access(places[i], X_OK) == 0)
			r = copy(places[i], ret);
	}
	return r;
}

/* QEMU's: "virtiofsd version 7.2.22 (Debian …)"; the other: "virtiofsd 1.13.2", early ones "virtiofsd backend 1.1.0" */
enum vm_virtiofsd vm_virtiofsd_tell(const char *text)
{
	if (str_has_prefix(text, "virtiofsd version "))
		return VM_VIRTIOFSD_QEMU;
	if (!str_has_prefix(text, "virtiofsd "))
		return VM_VIRTIOFSD_UNKNOWN;
	text += strlen("virtiofsd ");
	if (str_has_prefix(text, "backend "))
		text += strlen("backend ");
	return isdigit((unsigned char)*text) ? VM_VIRTIOFSD_RUST : VM_VIRTIOFSD_UNKNOWN;
}

const char *vm_virtiofsd_name(enum vm_virtiofsd v)
{
	return names[v];
}

enum vm_virtiofsd vm_virtiofsd_named(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(names[i], name))
			return (enum vm_virtiofsd)i;
	}
	return VM_VIRTIOFSD_UNKNOWN;
}

const char *vm_virtiofsd_fault(enum vm_virtiofsd v, const char **ret_next)
{
	*ret_next = "install virtiofsd of virtio-fs.gitlab.io (Debian 13: apt install virtiofsd)";
	/* not even that QEMU's tells to others than root */
	if (v == VM_VIRTIOFSD_UNKNOWN && geteuid() != 0)
		return "it does not say which virtiofsd it is (QEMU's runs as root only)";
	if (v == VM_VIRTIOFSD_UNKNOWN)
		return "it does not say which virtiofsd it is";
	if (v == VM_VIRTIOFSD_QEMU && geteuid() != 0)
		return "QEMU's virtiofsd runs as root only";
	*ret_next = NULL;
	return NULL;
}
