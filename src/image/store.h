/*
 * The store: an OCI image layout (opencontainers image-spec, image-layout.md) below STATE/store.
 *
 * A layer blob is the disk file: blobs/sha256/HEX, mode 0444, opened and attached as it is. Images are
 * manifests named in index.json by org.opencontainers.image.ref.name; kernels are manifests of
 * artifactType application/vnd.uvms.kernel.v1. Before its first use a blob's digest is checked; the
 * result is noted beside it with size, times and inode, so that a file which changed since is hashed
 * again and refused.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "cleanup.h"
#include "image-config.h"

#define STORE_DIGEST_MAX 71 /* "sha256:" and 64 hex digits */

struct store;

/* STATE_FD: the state directory (borrowed). Makes an empty layout when there is none. */
int store_open(int state_fd, struct store **ret);
void store_close(struct store *s);
DEFINE_CLEANUP(struct store *, store_close);

struct store_image {
	char *name;    /* owned, all; NULL when the image has none */
	char *digest;  /* of the manifest */
	char **layers; /* digests, lowest first */
	char *created; /* RFC 3339 */
	struct image_config config;
	uint64_t size_bytes; /* of all layers */
};

struct store_kernel {
	char *name;
	char *digest;  /* of the manifest */
	char *release; /* uname -r */
	char *kernel;  /* digest of the bootable file: vmlinux (ELF, PVH) where it can be had */
	char *modules; /* digest of the cpio archive with /uvms/modules and modules.list */
	char *created;
	uint64_t size_bytes;
};

/*
 * By name (in any form that image pull takes), or by a unique prefix (≥ 4 digits) of the manifest's digest. -ENOENT: no such image. A
 * broken index or manifest is -EBADMSG with *RET_REASON (heap).
 */
int store_find_image(struct store *s, const char *ref, struct store_image *ret, char **ret_reason);

/* The same for kernels; REF NULL is the default one (the newest added unless one was chosen). */
int store_find_kernel(
	struct store *s, const char *ref, struct store_kernel *ret, char **ret_reason);

void store_image_finish(struct store_image *i);
void store_kernel_finish(struct store_kernel *k);

/* Opens a blob read-only after its check. -EBADMSG with *RET_REASON (heap): it is not what it was. */
int store_open_blob(struct store *s, const char *digest, char **ret_reason);

/*
 * Gives DIGEST, open in FD, a second name below the directory DIR of the same file system: its hex digits. So who may not
 * pass through the store finds it, and it stays when it is removed from the store. Then takes it away again. -EXDEV:
 * DIR is elsewhere.
 */
int store_lend_blob(struct store *s, const char *digest, int fd, int dir);
void store_unlend_blob(struct store *s, const char *digest, int dir);
