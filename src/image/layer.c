#include "layer.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "oci.h"
#include "str.h"
#include "tool.h"

/* virtio-pmem maps whole huge pages */
#define LAYER_ALIGN (2ULL << 20)

/* EROFS wants it before the content is known: disks are told apart by serial, so it may be fixed */
#define LAYER_UUID "7576d500-0000-4000-8000-000000000001"

/*
 * The build time in the superblock. mkfs.erofs takes it from here and moves later times of files
 * back to it; earlier ones it keeps, unlike with -T: web servers answer by them and Python trusts
 * its compiled files by them.
 */
#define LAYER_EPOCH INT32_MAX

static int layer_pad(int fd)
{
	struct stat st;
	uint64_t size;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size == 0)
		return -EIO;
	size = ((uint64_t)st.st_size + LAYER_ALIGN - 1) & ~(LAYER_ALIGN - 1);
	return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

static char **layer_environment(const struct layer_source *source)
{
	CLEANUP_FREE char *epoch = str_printf("SOURCE_DATE_EPOCH=%llu",
		(unsigned long long)(source->epoch ? source->epoch : LAYER_EPOCH));

	return epoch ? tool_env((const char *[]){ epoch, NULL }) : NULL;
}

int layer_build(struct store *s, const struct layer_source *source, struct store_temp *ret_temp,
	struct store_edit_blob *ret_blob, char **ret_reason)
{
	CLEANUP(store_temp_finish) struct store_temp t = STORE_TEMP_IDLE;
	CLEANUP(strv_freep) char **env = layer_environment(source);
	struct store_edit_blob blob = { .media_type = OCI_LAYER };
	int r;

	if (!env)
		return -ENOMEM;
	r = store_temp_file(s, &t);
	if (r < 0)
		return r;
	/* what is inlined beside its inode cannot be mapped (DAX) */
	r = tool_run(&(struct tool){ TOOL_DEFAULTS, .mapped = source->mapped, .fd = t.fd,
			     .cwd_fd = source->dir, .env = (const char *const *)env,
			     .argv = (const char *[]){ "mkfs.erofs", "-d1", "-Enoinline_data", "-U",
				     LAYER_UUID, "/proc/self/fd/3", source->tree, NULL } },
		ret_reason);
	if (r >= 0)
		r = layer_pad(t.fd);
	blob.fd = t.fd;
	if (r >= 0)
		r = store_edit_seal(&blob);
	if (r < 0)
		return r;
	*ret_temp = t;
	*ret_blob = blob;
	t.fd = -EBADF;
	return 0;
}
