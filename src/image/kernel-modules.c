#include "kernel-modules.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "cpio.h"
#include "decompress.h"
#include "fd.h"
#include "file.h"
#include "str.h"

#define MODULE_MAX       (32 << 20) /* bytes */
#define MODULE_DEPTH_MAX 12         /* directories below kernel/, and chains of dependencies */
#define BUILTIN_MAX      (1 << 20)  /* bytes of modules.builtin */

/* Every module costs boot time, most of all with pure emulation. What they depend on comes with them. */
const struct kernel_modules_want kernel_modules_wanted[] = {
	{ "virtio_ring", 1 },
	{ "virtio", 1 },
	{ "virtio_pci_legacy_dev", 0 },
	{ "virtio_pci_modern_dev", 0 },
	{ "virtio_pci", 1 },
	{ "virtio_blk", 1 },
	{ "vsock", 1 },
	{ "vmw_vsock_virtio_transport_common", 1 },
	{ "vmw_vsock_virtio_transport", 1 },
	/* libcrc32c asks for it by the crypto interface, which no dependency tells */
	{ "crc32c_generic", 0 },
	{ "erofs", 1 },
	{ "overlay", 1 },
	{ "virtio_rng", 0, KERNEL_MODULES_LATE },
	{ "virtio_balloon", 0, KERNEL_MODULES_LATE },
	{ "virtio_mem", 0, KERNEL_MODULES_LATE },
	{ "pvpanic", 0, KERNEL_MODULES_LATE },
	{ "pvpanic_mmio", 0, KERNEL_MODULES_LATE },
	{ "pvpanic_pci", 0, KERNEL_MODULES_LATE },
	{ "button", 0, KERNEL_MODULES_LATE },
	{ "evdev", 0, KERNEL_MODULES_LATE }, /* how logind hears of the power button */
	{ "failover", 0, KERNEL_MODULES_NETWORK },
	{ "net_failover", 0, KERNEL_MODULES_NETWORK },
	{ "virtio_net", 0, KERNEL_MODULES_NETWORK },
	{ "ext4", 0, KERNEL_MODULES_VOLUMES },
	{ "virtiofs", 0, KERNEL_MODULES_HOTPLUG },
	{ "virtio_pmem", 0, KERNEL_MODULES_HOTPLUG },
	{ "nd_pmem", 0, KERNEL_MODULES_HOTPLUG },
	{ NULL },
};

static const char *const list_names[KERNEL_MODULES_GROUPS] = {
	[KERNEL_MODULES_EARLY] = "uvms/modules.list",
	[KERNEL_MODULES_LATE] = "uvms/modules.late",
	[KERNEL_MODULES_NETWORK] = "uvms/modules.network",
	[KERNEL_MODULES_VOLUMES] = "uvms/modules.volumes",
	[KERNEL_MODULES_HOTPLUG] = "uvms/modules.hotplug",
};

struct entry {
	char *name; /* owned: with '_' */
	char *path; /* owned: below the tree */
	bool open;
	bool placed[KERNEL_MODULES_GROUPS];
};

struct tree {
	int dir; /* borrowed */
	struct entry *entries;
	size_t n;
	char *builtin; /* modules.builtin; NULL: none */
	char **missing;
	struct kernel_modules *out;      /* borrowed */
	enum kernel_modules_group group; /* that is being filled */
	char **ret_reason;
};

static void tree_finish(struct tree *t)
{
	for (size_t i = 0; i < t->n; i++) {
		free(t->entries[i].name);
		free(t->entries[i].path);
	}
	free(t->entries);
	free(t->builtin);
	strv_free(t->missing);
}

/* "kernel/fs/virtio-rng.ko.xz" gives "virtio_rng"; NULL: no module's name, or no memory. */
static char *module_name(const char *path)
{
	const char *base = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	const char *end = strstr(base, ".ko");
	char *name;

	if (!end || end == base || (end[3] && end[3] != '.'))
		return NULL;
	name = strndup(base, (size_t)(end - base));
	for (char *c = name; c && *c; c++)
		*c = *c == '-' ? '_' : *c;
	return name;
}

static int tree_add(struct tree *t, const char *path)
{
	CLEANUP_FREE char *name = module_name(path), *copy = NULL;
	struct entry *bigger;

	if (!name)
		return 0;
	copy = strdup(path);
	bigger = reallocarray(t->entries, t->n + 1, sizeof *bigger);
	if (!copy || !bigger)
		return -ENOMEM;
	t->entries = bigger;
	t->entries[t->n++] = (struct entry){ .name = TAKE_PTR(name), .path = TAKE_PTR(copy) };
	return 0;
}

static int tree_walk(struct tree *t, const char *path, int depth);

static int tree_visit(struct tree *t, const char *path, const struct dirent *e, int depth)
{
	CLEANUP_FREE char *below = NULL;

	if (e->d_name[0] == '.')
		return 0;
	below = str_printf("%s/%s", path, e->d_name);
	if (!below)
		return -ENOMEM;
	if (e->d_type == DT_DIR)
		return tree_walk(t, below, depth + 1);
	return e->d_type == DT_REG ? tree_add(t, below) : 0;
}

static int tree_walk(struct tree *t, const char *path, int depth)
{
	int fd = openat(t->dir, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), r = 0;
	DIR *d;

	if (fd < 0)
		return -errno;
	d = depth < MODULE_DEPTH_MAX ? fdopendir(fd) : NULL;
	if (!d) {
		fd_close(fd);
		return -ELOOP;
	}
	for (struct dirent *e; r == 0 && (e = readdir(d));)
		r = tree_visit(t, path, e, depth);
	closedir(d);
	return r;
}

static struct entry *tree_find(struct tree *t, const char *name)
{
	for (size_t i = 0; i < t->n; i++) {
		if (str_eq(t->entries[i].name, name))
			return &t->entries[i];
	}
	return NULL;
}

static bool tree_is_builtin(struct tree *t, const char *name)
{
	char *rest = t->builtin, *end;

	for (; rest && *rest; rest = end + 1) {
		CLEANUP_FREE char *line = NULL, *here = NULL;

		end = strchrnul(rest, '\n');
		line = strndup(rest, (size_t)(end - rest));
		here = line ? module_name(line) : NULL;
		if (str_eq(here, name))
			return true;
		if (!*end)
			break;
	}
	return false;
}

/* The value behind "\0KEY=" in the module's .modinfo: borrowed, NULL when there is none. */
static const char *modinfo(const struct kernel_module *m, const char *key)
{
	size_t key_len = strlen(key);
	const char *at = m->data, *end = m->data + m->len;

	while ((at = memmem(at, (size_t)(end - at), key, key_len))) {
		if (at > m->data && at[-1] == 0 && memchr(at, 0, (size_t)(end - at)))
			return at + key_len;
		at += key_len;
	}
	return NULL;
}

static int module_read(struct tree *t, const struct entry *e, struct kernel_module *ret)
{
	CLEANUP_FREE char *raw = NULL, *plain = NULL, *file = str_printf("%s.ko", e->name);
	size_t raw_len, plain_len;
	int r;

	r = file ? file_read_at(t->dir, e->path, MODULE_MAX, &raw, &raw_len) : -ENOMEM;
	if (r < 0)
		return r;
	if (raw_len < 4 || memcmp(raw, "\177ELF", 4) != 0) {
		r = decompress(raw, raw_len, MODULE_MAX, &plain, &plain_len);
		if (r < 0)
			return r;
	} else {
		plain = TAKE_PTR(raw);
		plain_len = raw_len;
	}
	*ret = (struct kernel_module){ t->group, TAKE_PTR(file), TAKE_PTR(plain), plain_len };
	return 0;
}

static void module_finish(struct kernel_module *m)
{
	free(m->file);
	free(m->data);
}

static int modules_append(struct kernel_modules *out, struct kernel_module *m)
{
	const char *magic = modinfo(m, "vermagic=");
	struct kernel_module *bigger = reallocarray(out->list, out->n + 1, sizeof *bigger);

	if (!bigger)
		return -ENOMEM;
	out->list = bigger;
	if (magic && !out->release) {
		out->release = strndup(magic, strcspn(magic, " "));
		if (!out->release)
			return -ENOMEM;
	}
	out->list[out->n++] = *m;
	*m = (struct kernel_module){ 0 };
	return 0;
}

static int tree_place(struct tree *t, const char *name, bool required, int depth);

static int tree_place_depends(struct tree *t, const struct kernel_module *m, int depth)
{
	const char *depends = modinfo(m, "depends=");
	CLEANUP_FREE char *copy = strdup(str_or(depends, ""));
	char *rest = copy, *word;
	int r = copy ? 0 : -ENOMEM;

	while (r == 0 && (word = strsep(&rest, ","))) {
		for (char *c = word; *c; c++)
			*c = *c == '-' ? '_' : *c;
		if (*word)
			r = tree_place(t, word, true, depth + 1);
	}
	return r;
}

static int tree_place_entry(struct tree *t, struct entry *e, int depth)
{
	CLEANUP(module_finish) struct kernel_module m = { 0 };
	int r;

	/* what is always loaded is there; the other groups stand each for itself */
	if (e->placed[KERNEL_MODULES_EARLY] || e->placed[t->group])
		return 0;
	if (e->open || depth > MODULE_DEPTH_MAX)
		return -ELOOP;
	r = module_read(t, e, &m);
	if (r < 0)
		return r;
	e->open = true;
	r = tree_place_depends(t, &m, depth);
	if (r < 0)
		return r;
	e->open = false;
	e->placed[t->group] = true;
	return modules_append(t->out, &m);
}

static int tree_place(struct tree *t, const char *name, bool required, int depth)
{
	struct entry *e = tree_find(t, name);
	int r;

	if (!e)
		return required && !tree_is_builtin(t, name) ? strv_push(&t->missing, name) : 0;
	r = tree_place_entry(t, e, depth);
	if (r < 0 && r != -ENOMEM && !*t->ret_reason)
		*t->ret_reason = str_printf("module %s cannot be read: %s", e->path,
			r == -ELOOP        ? "modules depend on each other in a circle"
			: r == -EOPNOTSUPP ? "this uvms knows no such compression"
					   : strerror(-r));
	return r;
}

static char *join(char **words)
{
	char *text = strdup("");

	for (; text && words && *words; words++) {
		char *longer = str_printf("%s%s%s", text, *text ? ", " : "", *words);

		free(text);
		text = longer;
	}
	return text;
}

static int tree_missing(struct tree *t)
{
	CLEANUP_FREE char *names = NULL;

	if (!t->missing)
		return 0;
	names = join(t->missing);
	*t->ret_reason = str_printf(
		"the kernel has neither as a module nor built in: %s", str_or(names, "?"));
	return -ENOENT;
}

static int tree_read(struct tree *t)
{
	int r = file_read_at(t->dir, "modules.builtin", BUILTIN_MAX, &t->builtin, NULL);

	if (r < 0 && r != -ENOENT)
		return r;
	r = tree_walk(t, "kernel", 0);
	return r == -ENOENT ? 0 : r; /* everything may be built in */
}

int kernel_modules_load(int dir, const struct kernel_modules_want *want, struct kernel_modules *ret,
	char **ret_reason)
{
	CLEANUP(kernel_modules_finish) struct kernel_modules out = { 0 };
	CLEANUP(tree_finish) struct tree t = { .dir = dir, .out = &out, .ret_reason = ret_reason };
	int r = tree_read(&t);

	for (; want->name && r >= 0; want++) {
		t.group = want->group;
		r = tree_place(&t, want->name, want->required, 0);
	}
	if (r >= 0)
		r = tree_missing(&t);
	if (r < 0)
		return r;
	*ret = out;
	out = (struct kernel_modules){ 0 };
	return 0;
}

void kernel_modules_finish(struct kernel_modules *m)
{
	for (size_t i = 0; i < m->n; i++)
		module_finish(&m->list[i]);
	free(m->list);
	free(m->release);
	*m = (struct kernel_modules){ 0 };
}

DEFINE_CLEANUP(struct cpio *, cpio_destroy);

static int modules_write_list(
	const struct kernel_modules *m, struct cpio *c, enum kernel_modules_group group)
{
	CLEANUP_FREE char *text = strdup("");

	for (size_t i = 0; text && i < m->n; i++) {
		char *longer;

		if (m->list[i].group != group)
			continue;
		longer = str_printf("%s%s\n", text, m->list[i].file);
		free(text);
		text = longer;
	}
	if (!text)
		return -ENOMEM;
	cpio_file(c, list_names[group], 0400, text, strlen(text));
	return 0;
}

/* A module may be in several groups: its file is packed once. */
static bool modules_has_before(const struct kernel_modules *m, size_t i)
{
	for (size_t k = 0; k < i; k++) {
		if (str_eq(m->list[k].file, m->list[i].file))
			return true;
	}
	return false;
}

int kernel_modules_archive(const struct kernel_modules *m, int fd)
{
	CLEANUP(cpio_destroyp) struct cpio *c = NULL;
	int r = cpio_create(fd, &c);

	if (r < 0)
		return r;
	cpio_dir(c, "uvms", 0700);
	for (int g = 0; r == 0 && g < KERNEL_MODULES_GROUPS; g++)
		r = modules_write_list(m, c, (enum kernel_modules_group)g);
	if (r < 0)
		return r;
	cpio_dir(c, "uvms/modules", 0700);
	for (size_t i = 0; i < m->n; i++) {
		CLEANUP_FREE char *name = str_printf("uvms/modules/%s", m->list[i].file);

		if (modules_has_before(m, i))
			continue;
		if (!name)
			return -ENOMEM;
		cpio_file(c, name, 0400, m->list[i].data, m->list[i].len);
	}
	return cpio_finish(c);
}
