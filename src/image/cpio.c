#include "cpio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"

struct cpio {
	int fd;    /* borrowed */
	int error; /* the first */
	unsigned inode;
	uint64_t pos;
};

struct cpio_entry {
	const char *name;
	mode_t mode;
	unsigned major, minor;
	const void *data;
	size_t len;
};

int cpio_create(int fd, struct cpio **ret)
{
	struct cpio *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	*ret = c;
	return 0;
}

static void cpio_write(struct cpio *c, const void *data, size_t len)
{
	if (c->error == 0)
		c->error = fd_write_all(c->fd, data, len);
	c->pos += len;
}

static void cpio_pad(struct cpio *c, size_t to)
{
	static const char zeros[512];

	if (c->pos % to)
		cpio_write(c, zeros, to - c->pos % to);
}

static int cpio_entry(struct cpio *c, const struct cpio_entry *e)
{
	size_t name_len = strlen(e->name) + 1;
	char header[111];

	if (e->len > UINT32_MAX)
		return -EFBIG;
	snprintf(header, sizeof header,
		"070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ++c->inode, e->mode,
		0, 0, 1, 0, (unsigned)e->len, 0, 0, e->major, e->minor, (unsigned)name_len, 0);
	cpio_write(c, header, 110);
	cpio_write(c, e->name, name_len);
	cpio_pad(c, 4);
	if (e->len)
		cpio_write(c, e->data, e->len);
	cpio_pad(c, 4);
	return c->error;
}

int cpio_dir(struct cpio *c, const char *name, mode_t mode)
{
	return cpio_entry(c, &(struct cpio_entry){ .name = name, .mode = S_IFDIR | mode });
}

int cpio_file(struct cpio *c, const char *name, mode_t mode, const void *data, size_t len)
{
	return cpio_entry(
		c, &(struct cpio_entry){
			   .name = name, .mode = S_IFREG | mode, .data = data, .len = len });
}

int cpio_file_from(struct cpio *c, const char *name, mode_t mode, int fd)
{
	struct stat st;
	void *p;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size == 0)
		return cpio_file(c, name, mode, NULL, 0);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (p == MAP_FAILED)
		return -errno;
	r = cpio_file(c, name, mode, p, (size_t)st.st_size);
	munmap(p, (size_t)st.st_size);
	return r;
}

int cpio_node(struct cpio *c, const char *name, mode_t mode, unsigned major, unsigned minor)
{
	return cpio_entry(c,
		&(struct cpio_entry){ .name = name, .mode = mode, .major = major, .minor = minor });
}

int cpio_finish(struct cpio *c)
{
	cpio_entry(c, &(struct cpio_entry){ .name = "TRAILER!!!" });
	cpio_pad(c, 512);
	return c->error;
}

void cpio_destroy(struct cpio *c)
{
	free(c);
}
