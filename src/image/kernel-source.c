#include "kernel-source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "oci.h"
#include "str.h"
#include "tool.h"

#define KERNEL_SOURCE_PACKAGE  "linux-image-cloud-amd64"
#define KERNEL_SOURCE_TEXT_MAX (1 << 20) /* bytes of a tool's answer */

/* Symlinks of a tree that somebody else made stay inside it. */
static int open_in(int root, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(unsigned)(flags | O_RDONLY | O_CLOEXEC),
		.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	int fd = (int)syscall(SYS_openat2, root, path, &how, sizeof how);

	return fd < 0 ? -errno : fd;
}

static int open_modules(int root, const char *release)
{
	CLEANUP_FREE char *usr = str_printf("usr/lib/modules/%s", release);
	int fd = usr ? open_in(root, usr, O_DIRECTORY) : -ENOMEM;

	return fd == -ENOENT ? open_in(root, usr + 4, O_DIRECTORY) : fd;
}

static int open_kernel(int root, int modules, const char *release)
{
	CLEANUP_FREE char *boot = str_printf("boot/vmlinuz-%s", release);
	int fd = boot ? open_in(root, boot, O_NONBLOCK) : -ENOMEM;

	return fd == -ENOENT ? open_in(modules, "vmlinuz", O_NONBLOCK) : fd;
}

static int open_release(int root, const char *release, struct kernel_source *ret)
{
	CLEANUP_CLOSE int modules = open_modules(root, release);
	int kernel;

	if (modules < 0)
		return modules;
	kernel = open_kernel(root, modules, release);
	if (kernel < 0)
		return kernel;
	ret->kernel = kernel;
	ret->modules = TAKE_FD(modules);
	return 0;
}

/* The newest release below ROOT that has both. -ENOENT: none. */
static int find_newest(int root, char **ret)
{
	CLEANUP_FREE char *newest = NULL;
	int fd = open_modules(root, "."), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);

	if (!d) {
		fd_close(fd);
		return fd < 0 ? fd : -ENOMEM;
	}
	for (struct dirent *e; r == 0 && (e = readdir(d));) {
		CLEANUP(kernel_source_finish) struct kernel_source probe = KERNEL_SOURCE_IDLE;

		if (e->d_name[0] == '.' || (newest && strverscmp(e->d_name, newest) < 0))
			continue;
		if (open_release(root, e->d_name, &probe) == 0)
			r = str_set(&newest, e->d_name);
	}
	closedir(d);
	if (r == 0 && !newest)
		r = -ENOENT;
	if (r < 0)
		return r;
	*ret = TAKE_PTR(newest);
	return 0;
}

/* RELEASE, or the newest when it is "". */
static int open_tree(int root, const char *release, struct kernel_source *ret)
{
	CLEANUP_FREE char *newest = NULL;
	int r;

	if (strchr(release, '/') || release[0] == '.')
		return -EINVAL;
	r = *release ? 0 : find_newest(root, &newest);
	return r < 0 ? r : open_release(root, *release ? release : newest, ret);
}

int kernel_source_files(
	const char *file, const char *modules, struct kernel_source *ret, char **ret_reason)
{
	CLEANUP_CLOSE int kernel = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK), dir = -EBADF;
	int r = kernel < 0 ? -errno : 0;

	if (r == 0) {
		dir = open(modules, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = dir < 0 ? -errno : 0;
	}
	if (r == 0 && faccessat(dir, "kernel", F_OK, 0) < 0 &&
		faccessat(dir, "modules.builtin", F_OK, 0) < 0) {
		*ret_reason = str_printf("%s is no lib/modules/RELEASE: it has neither kernel/ nor "
					 "modules.builtin",
			modules);
		return -ENOENT;
	}
	if (r < 0) {
		*ret_reason = str_printf("%s: %s", kernel < 0 ? file : modules, strerror(-r));
		return r;
	}
	ret->kernel = TAKE_FD(kernel);
	ret->modules = TAKE_FD(dir);
	return 0;
}

int kernel_source_boot(const char *release, struct kernel_source *ret, char **ret_reason)
{
	CLEANUP_CLOSE int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int r = root < 0 ? -errno : open_tree(root, release, ret);

	if (r == -EACCES)
		*ret_reason = strdup("the host's /boot is readable by root only");
	else if (r < 0)
		*ret_reason =
			*release ? str_printf("the host has no /boot/vmlinuz-%s with "
					      "/lib/modules/%s",
					   release, release)
				 : strdup("the host has no kernel in /boot with its modules in "
					  "/lib/modules");
	return r;
}

/* What a tool prints, whole. */
static int ask_tool(const char *const *argv, char **ret, char **ret_reason)
{
	CLEANUP_CLOSE int out = fd_memfd("uvms-tool-output");
	int r;

	if (out < 0)
		return out;
	r = tool_run(&(struct tool){ TOOL_DEFAULTS, .argv = argv, .stdout_fd = out }, ret_reason);
	if (r < 0)
		return r;
	if (lseek(out, 0, SEEK_SET) < 0)
		return -errno;
	return file_read_fd(out, KERNEL_SOURCE_TEXT_MAX, ret, NULL);
}

/* Of the package's record: the first linux-image-… that it depends on, else itself. */
static char *deb_resolve(const char *package, const char *record)
{
	const char *depends = strstr(record, "\nDepends: ");
	const char *end = depends ? strchrnul(depends + 1, '\n') : NULL;
	const char *at = depends ? strstr(depends, "linux-image-") : NULL;

	if (!at || at >= end)
		return strdup(package);
	return strndup(at, strcspn(at, " ,|(\n"));
}

static int deb_record(
	const char *package, void (*say)(const char *line), char **ret, char **ret_reason)
{
	const char *show[] = { "apt-cache", "show", "--no-all-versions", "--", package, NULL };
	const char *update[] = { "apt-get", "update", NULL };
	int r = ask_tool(show, ret, ret_reason);

	if (r != -EIO || geteuid() != 0)
		return r;
	if (say)
		say("apt knows no such package: fetching its lists (apt-get update)");
	free(*ret_reason);
	*ret_reason = NULL;
	r = tool_run(&(struct tool){ TOOL_DEFAULTS, .argv = update }, ret_reason);
	return r < 0 ? r : ask_tool(show, ret, ret_reason);
}

static char *deb_file(int dir)
{
	int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = copy < 0 ? NULL : fdopendir(copy);
	char *name = NULL;

	if (!d) {
		fd_close(copy);
		return NULL;
	}
	for (struct dirent *e; !name && (e = readdir(d));) {
		size_t n = strlen(e->d_name);

		if (n > 4 && e->d_name[0] != '.' && str_eq(e->d_name + n - 4, ".deb"))
			name = strdup(e->d_name);
	}
	closedir(d);
	return name;
}

static int deb_fetch(const char *package, int work, char **ret_reason)
{
	const char *download[] = { "apt-get", "download", "--", package, NULL };
	CLEANUP_FREE char *file = NULL, *path = NULL;
	int r;

	r = tool_run(&(struct tool){ TOOL_DEFAULTS, .argv = download, .cwd_fd = work }, ret_reason);
	if (r < 0)
		return r;
	file = deb_file(work);
	path = file ? str_printf("./%s", file) : NULL;
	if (!path)
		return -ENOENT;
	return tool_run(&(struct tool){ TOOL_DEFAULTS, .cwd_fd = work,
				.argv = (const char *[]){ "dpkg-deb", "-x", path, ".", NULL } },
		ret_reason);
}

static bool deb_name_is_sane(const char *name)
{
	return *name && *name != '-' &&
	       !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789+.-:")];
}

int kernel_source_deb(struct store *s, const char *package, void (*say)(const char *line),
	struct kernel_source *ret, char **ret_reason)
{
	static const char *const tools[] = { "apt-cache", "apt-get", "dpkg-deb", NULL };
	CLEANUP_FREE char *record = NULL, *real = NULL, *line = NULL;
	int r = tool_require(tools, ret_reason);

	package = *package ? package : KERNEL_SOURCE_PACKAGE;
	if (r == 0 && !deb_name_is_sane(package)) {
		*ret_reason = str_printf("\"%s\" is no package's name", package);
		return -EINVAL;
	}
	if (r == 0)
		r = deb_record(package, say, &record, ret_reason);
	if (r < 0)
		return r;
	real = deb_resolve(package, record);
	line = str_printf("fetching %s", str_or(real, package));
	if (!real || !line)
		return -ENOMEM;
	if (say)
		say(line);
	r = store_temp_dir(s, &ret->work);
	if (r >= 0)
		r = deb_fetch(real, ret->work.fd, ret_reason);
	if (r < 0)
		return r;
	r = open_tree(ret->work.fd, "", ret);
	if (r == -ENOENT)
		*ret_reason = str_printf("%s has no kernel with modules in it", real);
	return r;
}

/* Whole: fsck.erofs cannot extract a part, and to mount it one must be root. */
static int image_extract(struct store *s, const char *digest, int work, char **ret_reason)
{
	CLEANUP_CLOSE int blob = store_open_blob(s, digest, ret_reason);

	if (blob < 0)
		return blob;
	return tool_run(&(struct tool){ TOOL_DEFAULTS, .fd = blob, .cwd_fd = work,
				.argv = (const char *[]){ "fsck.erofs", "--extract=tree",
					"--no-preserve", "/proc/self/fd/3", NULL } },
		ret_reason);
}

static int image_look(
	struct store *s, const char *digest, struct kernel_source *ret, char **ret_reason)
{
	CLEANUP_CLOSE int tree = -EBADF;
	int r;

	r = image_extract(s, digest, ret->work.fd, ret_reason);
	if (r < 0)
		return r;
	tree = openat(ret->work.fd, "tree", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return tree < 0 ? -errno : open_tree(tree, "", ret);
}

int kernel_source_image(struct store *s, const char *image, void (*say)(const char *line),
	struct kernel_source *ret, char **ret_reason)
{
	static const char *const tools[] = { "fsck.erofs", NULL };
	CLEANUP(store_image_finish) struct store_image i = { 0 };
	int r = tool_require(tools, ret_reason);

	if (r == 0)
		r = store_find_image(s, image, &i, ret_reason);
	if (r == -ENOENT)
		*ret_reason = str_printf("there is no image %s", image);
	if (r < 0)
		return r;
	if (say)
		say("extracting the image");
	r = -ENOENT;
	for (size_t n = strv_length(i.layers); n-- > 0 && r == -ENOENT;) {
		store_temp_finish(&ret->work);
		r = store_temp_dir(s, &ret->work);
		if (r >= 0)
			r = image_look(s, i.layers[n], ret, ret_reason);
	}
	if (r == -ENOENT && !*ret_reason)
		*ret_reason =
			str_printf("no layer of %s has a kernel with its modules: install one "
				   "in it, or use --from-deb",
				image);
	return r;
}

void kernel_source_finish(struct kernel_source *k)
{
	k->kernel = fd_close(k->kernel);
	k->modules = fd_close(k->modules);
	store_temp_finish(&k->work);
}
