#include "guest-root.h"

#include "cleanup.h"
#include "file.h"
#include "guest-disk.h"
#include "guest-stop.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define DISK_MS      10000
#define ROOT         "/root"
#define OPTIONS_MAX  4096 /* one page, mount(2) */
#define LAYER_FORMAT "/l/%u"

static int make_dir(const char *path, mode_t mode)
{
	return mkdir(path, mode) < 0 && errno != EEXIST ? -errno : 0;
}

static int mount_at(const char *type, const char *target, unsigned long flags, const char *options)
{
	int r = make_dir(target, 0755);

	if (r < 0)
		return r;
	return mount(type, target, type, flags, options) < 0 && errno != EBUSY ? -errno : 0;
}

static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR | O_NOCTTY);

	if (fd < 0)
		return;
	for (int i = 0; i < 3; i++)
		if (i != fd)
			dup2(fd, i);
	if (fd > 2)
		close(fd);
}

int guest_root_mount_kernel(void)
{
	int r;

	umask(0);
	r = mount_at("devtmpfs", "/dev", MS_NOSUID, "mode=0755");
	if (r < 0)
		return r;
	open_console();
	r = mount_at("proc", "/proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	return r < 0 ? r : mount_at("sysfs", "/sys", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

/* ---- layers and overlay ---- */

static int mount_disk(const struct wire_str *serial, const struct wire_str *fstype,
	const char *target, unsigned long flags)
{
	char disk[GUEST_DISK_PATH_MAX], type[BOOT_DESC_FSTYPE_MAX + 1];
	int r;

	r = guest_disk_find(serial, DISK_MS, disk);
	if (r < 0)
		return r;
	snprintf(type, sizeof type, "%.*s", (int)fstype->len, fstype->s);
	return mount(disk, target, type, flags, NULL) < 0 ? -errno : 0;
}

static int mount_layers(
	const struct boot_desc *d, char lower[static OPTIONS_MAX], const char **step)
{
	static char name[64];
	size_t len = 0;

	make_dir("/l", 0755);
	for (uint32_t i = d->n_layers; i-- > 0;) { /* overlayfs names the topmost first */
		char dir[16];
		int r;

		snprintf(dir, sizeof dir, LAYER_FORMAT, i);
		snprintf(name, sizeof name, "layer %.*s", (int)d->layers[i].serial.len,
			d->layers[i].serial.s);
		*step = name;
		make_dir(dir, 0755);
		r = mount_disk(&d->layers[i].serial, &d->layers[i].fstype, dir, MS_RDONLY);
		if (r < 0)
			return r;
		len += (size_t)snprintf(
			lower + len, OPTIONS_MAX - len, "%s%s", len ? ":" : "", dir);
	}
	return 0;
}

/* The root directory's own mode and owner are those of the topmost layer. */
static int make_upper(const struct boot_desc *d)
{
	char options[64] = "mode=0755", top[16];
	struct stat st;
	int r;

	if (d->root_size_bytes > 0)
		snprintf(options, sizeof options, "mode=0755,size=%llu",
			(unsigned long long)d->root_size_bytes);
	r = mount_at("tmpfs", "/o", 0, options);
	if (r == 0)
		r = make_dir("/o/upper", 0755);
	if (r == 0)
		r = make_dir("/o/work", 0755);
	if (r < 0)
		return r;
	snprintf(top, sizeof top, LAYER_FORMAT, d->n_layers - 1);
	if (stat(top, &st) < 0 || chown("/o/upper", st.st_uid, st.st_gid) < 0 ||
		chmod("/o/upper", st.st_mode & 07777) < 0)
		return -errno;
	return 0;
}

int guest_root_build(const struct boot_desc *d, const char **step)
{
	char lower[OPTIONS_MAX] = "";
	CLEANUP_FREE char *options = NULL;
	int r;

	r = mount_layers(d, lower, step);
	if (r < 0)
		return r;
	*step = "overlay";
	r = make_upper(d);
	if (r == 0)
		r = make_dir(ROOT, 0755);
	if (r < 0)
		return r;
	options = str_printf("lowerdir=%s,upperdir=/o/upper,workdir=/o/work", lower);
	if (!options)
		return -ENOMEM;
	return mount("overlay", ROOT, "overlay", 0, options) < 0 ? -errno : 0;
}

/* ---- the switch ---- */

static int move_mounts(const char **step)
{
	static const char *const names[] = { "proc", "sys", "dev" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char from[16], to[32];

		*step = names[i];
		snprintf(from, sizeof from, "/%s", names[i]);
		snprintf(to, sizeof to, ROOT "/%s", names[i]);
		make_dir(to, 0755);
		if (mount(from, to, NULL, MS_MOVE, NULL) < 0)
			return -errno;
	}
	return 0;
}

static int mount_run(const struct boot_desc *d)
{
	int r;

	r = mount_at("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=0755,size=20%");
	if (r == 0)
		r = mount_at("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC,
			"mode=0620,gid=5,ptmxmode=0666");
	if (r == 0)
		r = mount_at("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777");
	if (r == 0 && d->mode == BOOT_DESC_COMMAND)
		mount_at("cgroup2", "/sys/fs/cgroup", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	return r;
}

int guest_root_switch(const struct boot_desc *d, const char **step)
{
	int r;

	r = move_mounts(step);
	if (r < 0)
		return r;
	*step = "switch root";
	umount2("/o", MNT_DETACH);
	if (chdir(ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
		chdir("/") < 0)
		return -errno;
	*step = "/run";
	umask(022);
	return mount_run(d);
}

/* ---- in the new root ---- */

static int mount_volume(const struct boot_desc_mount *m, const char *target)
{
	unsigned long flags = m->flags & BOOT_DESC_MOUNT_READ_ONLY ? MS_RDONLY : 0;
	char tag[BOOT_DESC_TAG_MAX + 1];
	int dir = file_mkdir_path(target, 0755);

	if (dir < 0)
		return dir;
	close(dir);
	if (m->fstype.len != strlen("virtiofs") ||
		memcmp(m->fstype.s, "virtiofs", m->fstype.len) != 0)
		return mount_disk(&m->source, &m->fstype, target, flags);
	snprintf(tag, sizeof tag, "%.*s", (int)m->source.len, m->source.s);
	return mount(tag, target, "virtiofs", flags, NULL) < 0 ? -errno : 0;
}

int guest_root_mount_volumes(const struct boot_desc *d, const char **step)
{
	static char target[BOOT_DESC_PATH_MAX + 1];

	for (uint32_t i = 0; i < d->n_mounts; i++) {
		int r;

		snprintf(target, sizeof target, "%.*s", (int)d->mounts[i].target.len,
			d->mounts[i].target.s);
		*step = target;
		r = mount_volume(&d->mounts[i], target);
		if (r < 0)
			return r;
	}
	return 0;
}

void guest_root_identity(const struct boot_desc *d)
{
	static const uint8_t none[BOOT_DESC_MACHINE_ID];
	char id[2 * BOOT_DESC_MACHINE_ID + 2];
	CLEANUP_CLOSE int etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (d->hostname.len > 0 && sethostname(d->hostname.s, d->hostname.len) < 0)
		guest_stop_warn("host name: %s", strerror(errno));
	if (etc < 0 || memcmp(d->machine_id, none, sizeof none) == 0)
		return;
	str_hex(id, d->machine_id, sizeof d->machine_id);
	memcpy(id + strlen(id), "\n", 2);
	if (file_write_at(etc, "machine-id", id, strlen(id), 0444) < 0)
		guest_stop_warn("cannot write /etc/machine-id");
}
