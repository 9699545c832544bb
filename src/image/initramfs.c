#include "initramfs.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cpio.h"
#include "fd.h"
#include "file.h"
#include "str.h"

DEFINE_CLEANUP(struct cpio *, cpio_destroy);

static int initramfs_copy(int out, int in)
{
	off_t at = 0;
	struct stat st;

	if (fstat(in, &st) < 0)
		return -errno;
	while (at < st.st_size) {
		ssize_t n = sendfile(out, in, &at, (size_t)(st.st_size - at));

		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
	}
	/* the next archive begins at a multiple of 4 */
	return ftruncate(out, (at + 511) & ~(off_t)511) < 0 || lseek(out, 0, SEEK_END) < 0 ? -errno
											   : 0;
}

static int initramfs_credentials(struct cpio *c, const struct initramfs *i)
{
	size_t left = i->credentials_max;
	int r = 0;

	if (i->credentials)
		cpio_dir(c, "uvms/credentials", 0700);
	for (const char *const *name = i->credentials; r == 0 && name && *name; name++) {
		CLEANUP_FREE char *path = str_printf("uvms/credentials/%s", *name), *data = NULL;
		size_t len;

		r = path ? file_read_at(i->credentials_fd, *name, left, &data, &len) : -ENOMEM;
		if (r < 0)
			break;
		cpio_file(c, path, 0400, data, len);
		explicit_bzero(data, len);
		left -= len;
	}
	return r;
}

static int initramfs_file(int into_fd)
{
	int fd;

	if (into_fd < 0)
		return fd_memfd("uvms-initramfs");
	fd = openat(into_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd < 0 ? -errno : fd;
}

int initramfs_build(const struct initramfs *i)
{
	CLEANUP(cpio_destroyp) struct cpio *c = NULL;
	CLEANUP_CLOSE int fd = initramfs_file(i->into_fd);
	int r;

	if (fd < 0)
		return fd;
	r = initramfs_copy(fd, i->modules_fd);
	if (r < 0)
		return r;
	r = cpio_create(fd, &c);
	if (r < 0)
		return r;
	cpio_dir(c, "dev", 0755);
	cpio_node(c, "dev/console", S_IFCHR | 0600, 5, 1);
	cpio_file_from(c, "init", 0755, i->guest_fd);
	cpio_dir(c, "uvms", 0700);
	cpio_file(c, "uvms/boot", 0400, i->boot, i->boot_len);
	r = initramfs_credentials(c, i);
	if (r == 0)
		r = cpio_finish(c);
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return TAKE_FD(fd);
}
