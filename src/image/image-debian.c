#include "image-debian.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "str.h"
#include "tool.h"

#define IMAGE_DEBIAN_SCRIPT_MAX (100 << 10) /* bytes: it travels in the environment */

/* Texts come from the environment, so that nothing of them is ever read as part of a hook. */
static const char script_hook[] =
	"printf '%s' \"$UVMS_SCRIPT\" >\"$1/uvms-script\" && chmod 0755 \"$1/uvms-script\" && "
	"{ chroot \"$1\" /uvms-script; r=$?; rm -f \"$1/uvms-script\"; exit $r; }";
static const char tidy_hook[] = "sh -ec \"$UVMS_TIDY\" uvms-tidy \"$1\"";

/*
 * What differs from one installation of the same packages to the next, and what nobody needs in an
 * image. Files made or changed by the installation get the date of the archive (the newest Release
 * file), as if all had been installed the moment it was published (the layer's builder moves them);
 * what packages bring keeps its own.
 * The root is thrown away at every stop, so systemd would take each start for the first one after an
 * update of /usr: .updated tells it that nothing is to be done. Without /etc/hostname the name that the
 * VM gave to its kernel stays.
 */
static const char tidy_script[] =
	"UVMS_TIDY=cd \"$1\"\n"
	"epoch=${SOURCE_DATE_EPOCH:-$(sed -n 's/^Date: //p' var/lib/apt/lists/*Release 2>/dev/null "
	"|"
	" while read -r d; do date -ud \"$d\" +%s; done | sort -n | tail -n1)}\n"
	"[ -n \"$epoch\" ] || { echo 'the archive has no Release file with a date' >&2; exit 1; }\n"
	"find var/log -type f -delete\n"
	"rm -rf var/lib/apt/lists/* var/cache/apt/*.bin var/cache/apt/archives/*.deb\n"
	"rm -f var/cache/ldconfig/aux-cache var/cache/debconf/*-old var/lib/dpkg/*-old\n"
	"rm -f etc/passwd- etc/shadow- etc/group- etc/gshadow- etc/subuid- etc/subgid-\n"
	"rm -f var/lib/systemd/random-seed var/lib/dbus/machine-id\n"
	"rm -f etc/ssh/ssh_host_*_key etc/ssh/ssh_host_*_key.pub\n"
	"rm -f etc/machine-id etc/hostname etc/resolv.conf; : >etc/machine-id; : >etc/resolv.conf\n"
	"chmod 0444 etc/machine-id\n"
	"[ ! -d usr/lib/systemd ] || : >etc/.updated >var/.updated\n"
	"sed -i -E \"s/^([^:]*:[^:]*:)[0-9]+:/\\1$((epoch / 86400)):/\" etc/shadow\n"
	"[ ! -d usr/lib/systemd ] || touch -d \"@$epoch\" etc/.updated var/.updated\n"
	"touch -d \"@$epoch\" usr\n";

int image_debian_require(bool mapped, char **ret_reason)
{
	static const char *const tools[] = { "mkfs.erofs", "mmdebstrap", "tar", NULL };
	static const char *const user_tools[] = { "unshare", "newuidmap", NULL };
	int r = tool_require(tools, ret_reason);

	return r == 0 && mapped ? tool_require(user_tools, ret_reason) : r;
}

static int image_debian_arguments(const struct image_debian *d, char ***v)
{
	int r = 0;

	r = r ? r : strv_push(v, "mmdebstrap");
	r = r ? r : strv_pushf(v, "--mode=%s", d->mapped ? "unshare" : "root");
	r = r ? r : strv_push(v, "--variant=minbase");
	r = r ? r : strv_push(v, "--format=tar");
	for (const char *const *p = d->include; p && *p && r == 0; p++)
		r = strv_pushf(v, "--include=%s", *p);
	if (d->script)
		r = r ? r : strv_pushf(v, "--customize-hook=%s", script_hook);
	r = r ? r : strv_pushf(v, "--customize-hook=%s", tidy_hook);
	r = r ? r : strv_push(v, "--");
	r = r ? r : strv_push(v, d->suite);
	return r ? r : strv_push(v, "-");
}

static int image_debian_environment(const struct image_debian *d, char ***ret, char **ret_reason)
{
	CLEANUP_FREE char *text = NULL, *setting = NULL;
	CLEANUP_CLOSE int fd = -EBADF;
	int r;

	if (d->script) {
		fd = open(d->script, O_RDONLY | O_CLOEXEC);
		r = fd < 0 ? -errno : file_read_fd(fd, IMAGE_DEBIAN_SCRIPT_MAX, &text, NULL);
		if (r < 0) {
			*ret_reason = str_printf("%s: %s", d->script, strerror(-r));
			return r;
		}
		setting = str_printf("UVMS_SCRIPT=%s", text);
		if (!setting)
			return -ENOMEM;
	}
	/* a whole tree: too much for a /tmp in memory, and others than us must be able to enter */
	*ret = tool_env((const char *[]){ "LC_ALL=C.UTF-8", tidy_script,
		getenv("TMPDIR") ? "DEBIAN_FRONTEND=noninteractive" : "TMPDIR=/var/tmp", setting,
		NULL });
	return *ret ? 0 : -ENOMEM;
}

static int image_debian_install(const struct image_debian *d, int tar, char **ret_reason)
{
	CLEANUP(strv_freep) char **argv = NULL, **env = NULL;
	int r;

	r = image_debian_environment(d, &env, ret_reason);
	if (r < 0)
		return r;
	r = image_debian_arguments(d, &argv);
	if (r < 0)
		return r;
	return tool_run(&(struct tool){ TOOL_DEFAULTS, .argv = (const char *const *)argv,
				.env = (const char *const *)env, .stdout_fd = tar },
		ret_reason);
}

/* Without device nodes, which a user cannot make: the guest has a devtmpfs. */
static int image_debian_unpack(
	const struct image_debian *d, int tar, int work, const char *tree, char **ret_reason)
{
	if (lseek(tar, 0, SEEK_SET) < 0 || mkdirat(work, tree, 0755) < 0)
		return -errno;
	return tool_run(
		&(struct tool){ TOOL_DEFAULTS, .mapped = d->mapped, .cwd_fd = work, .stdin_fd = tar,
			.argv = (const char *[]){ "tar", "--extract", "--file=-", "--numeric-owner",
				"--same-owner", "--same-permissions", "--xattrs",
				"--xattrs-include=*", "--exclude=./dev/*", "--directory", tree,
				NULL } },
		ret_reason);
}

/* The tidying hook left it as the time of /usr. */
static int image_debian_epoch(int work, const char *tree, uint64_t *ret)
{
	CLEANUP_FREE char *usr = str_printf("%s/usr", tree);
	struct stat st;

	if (!usr)
		return -ENOMEM;
	if (fstatat(work, usr, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	*ret = (uint64_t)st.st_mtim.tv_sec;
	return 0;
}

int image_debian_tree(const struct image_debian *d, int work, const char *tree, uint64_t *ret_epoch,
	char **ret_reason)
{
	CLEANUP_CLOSE int tar = openat(work, "tar", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r;

	if (tar < 0)
		return -errno;
	if (unlinkat(work, "tar", 0) < 0)
		return -errno;
	if (d->say)
		d->say("installing the packages with mmdebstrap");
	r = image_debian_install(d, tar, ret_reason);
	if (r < 0)
		return r;
	if (d->say)
		d->say("unpacking the tree");
	r = image_debian_unpack(d, tar, work, tree, ret_reason);
	return r < 0 ? r : image_debian_epoch(work, tree, ret_epoch);
}
