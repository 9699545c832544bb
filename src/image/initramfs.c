#include "initramfs.h"

#include <errno.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cpio.h"
#include "fd.h"

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

int initramfs_build(int modules_fd, int guest_fd, const void *boot, size_t boot_len)
{
	CLEANUP(cpio_destroyp) struct cpio *c = NULL;
	CLEANUP_CLOSE int fd = fd_memfd("uvms-initramfs");
	int r;

	if (fd < 0)
		return fd;
	r = initramfs_copy(fd, modules_fd);
	if (r < 0)
		return r;
	r = cpio_create(fd, &c);
	if (r < 0)
		return r;
	cpio_dir(c, "dev", 0755);
	cpio_node(c, "dev/console", S_IFCHR | 0600, 5, 1);
	cpio_file_from(c, "init", 0755, guest_fd);
	cpio_dir(c, "uvms", 0700);
	cpio_file(c, "uvms/boot", 0400, boot, boot_len);
	r = cpio_finish(c);
	if (r < 0)
		return r;
	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	return TAKE_FD(fd);
}
