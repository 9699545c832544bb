/*
 * The modules that a guest needs before it has its root, out of a tree lib/modules/RELEASE, in an
 * order in which they can be loaded one after the other.
 *
 * What a module depends on stands in the module itself (.modinfo: depends=), so neither depmod's
 * modules.dep, which packages do not ship, nor depmod is needed.
 */
#pragma once

#include <stddef.h>

/* When a module is loaded; the lists of the archive are named in kernel-modules.c. */
enum kernel_modules_group {
	KERNEL_MODULES_EARLY,   /* before the root is there: always */
	KERNEL_MODULES_LATE,    /* some time after it: always */
	KERNEL_MODULES_NETWORK, /* only in a guest with a network device */
	KERNEL_MODULES_VOLUMES, /* only in a guest with a volume */
	KERNEL_MODULES_HOTPLUG, /* some time after the root is there, where devices may come later */
	KERNEL_MODULES_GROUPS,
};

struct kernel_module {
	enum kernel_modules_group group;
	char *file; /* owned, all: "virtio_blk.ko" */
	char *data; /* uncompressed */
	size_t len;
};

struct kernel_modules {
	struct kernel_module *list; /* owned; by group, in load order */
	size_t n;
	char *release; /* owned: of vermagic=; NULL when there is no module */
};

struct kernel_modules_want {
	const char *name; /* with '_', never '-' */
	int required;     /* a module or built in */
	enum kernel_modules_group group;
};

/* What a microVM boots with, group by group; ends with a NULL name. */
extern const struct kernel_modules_want kernel_modules_wanted[];

/*
 * DIR: lib/modules/RELEASE. -ENOENT with *RET_REASON: a required one is neither module nor built in;
 * -EBADMSG with it: a module cannot be read.
 */
int kernel_modules_load(int dir, const struct kernel_modules_want *want, struct kernel_modules *ret,
	char **ret_reason);
void kernel_modules_finish(struct kernel_modules *m);

/* The archive with a list for each group (/uvms/modules.list …) and /uvms/modules into FD. */
int kernel_modules_archive(const struct kernel_modules *m, int fd);
