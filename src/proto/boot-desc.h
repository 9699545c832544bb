/*
 * The boot description: what one VM's initramfs tells uvms-guest, as /uvms/boot (mode 0400, unlinked
 * when it was read). Written by the host, read by the uvms-guest of the same package: one version, no
 * compatibility. Layout: "UVMSBOOT", u32 version, then the fields below in their order, strings as
 * u32 length + bytes. Pure: no allocation, no I/O; decoded strings are views into the input.
 *
 * Modules are not here: /uvms/modules.list in the cached archive names one uncompressed .ko a line, in
 * the order of loading, below /uvms/modules/; /uvms/modules.late (it may be missing) names those that can
 * wait until the guest has its root; /uvms/modules.network and /uvms/modules.volumes those that only a
 * guest with such a device loads; /uvms/modules.hotplug (missing in what an older uvms packed) those of
 * what may come later. Credentials are files of their own, /uvms/credentials/NAME.
 */
#pragma once

#include "wire.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BOOT_DESC_PATH         "/uvms/boot"
#define BOOT_DESC_MODULES_LIST "/uvms/modules.list"
#define BOOT_DESC_MODULES_LATE "/uvms/modules.late"
#define BOOT_DESC_MODULES_NET  "/uvms/modules.network"
#define BOOT_DESC_MODULES_VOLS "/uvms/modules.volumes"
#define BOOT_DESC_MODULES_PLUG "/uvms/modules.hotplug"
#define BOOT_DESC_MODULES_DIR  "/uvms/modules"
#define BOOT_DESC_CREDENTIALS  "/uvms/credentials"

#define BOOT_DESC_VERSION      2
#define BOOT_DESC_MAX          (128 * 1024) /* bytes, whole */
#define BOOT_DESC_SECRET       32
#define BOOT_DESC_SEED         64
#define BOOT_DESC_MACHINE_ID   16
#define BOOT_DESC_LAYERS_MAX   64
#define BOOT_DESC_MOUNTS_MAX   32
#define BOOT_DESC_SERIAL_MAX   20 /* VIRTIO_BLK_ID_BYTES */
#define BOOT_DESC_TAG_MAX      36 /* virtio-fs */
#define BOOT_DESC_FSTYPE_MAX   15
#define BOOT_DESC_HOSTNAME_MAX 64
#define BOOT_DESC_PATH_MAX     4095
#define BOOT_DESC_USER_MAX     255
#define BOOT_DESC_MAC          6
#define BOOT_DESC_IPV4         4
#define BOOT_DESC_ARGS_MAX     1024
#define BOOT_DESC_ENV_MAX      1024

enum boot_desc_mode {
	BOOT_DESC_COMMAND = 1, /* uvms-guest stays PID 1 */
	BOOT_DESC_INIT = 2,    /* the image's init takes over */
};

enum boot_desc_flags {
	BOOT_DESC_READY_PROBE = 1 << 0, /* INIT: READY waits for the end of start-up */
	BOOT_DESC_NETWORK = 1 << 1,     /* `network` says how the interface is set up */
	BOOT_DESC_HOTPLUG = 1 << 2,     /* devices may come later: a network, what is mounted */
	BOOT_DESC_FLAGS = (1 << 3) - 1,
};

/* Of the one interface that has this hardware address. Addresses in network order. */
struct boot_desc_network {
	uint8_t mac[BOOT_DESC_MAC];
	uint8_t address[BOOT_DESC_IPV4], gateway[BOOT_DESC_IPV4], dns[BOOT_DESC_IPV4];
	uint8_t prefix; /* bits, 1 … 32 */
	uint32_t mtu;   /* bytes, 576 … 65535 */
};

struct boot_desc_layer {
	struct wire_str serial; /* of the virtio-blk disk: [A-Za-z0-9_.-], 1 … 20 */
	struct wire_str fstype; /* "erofs" */
};

enum boot_desc_mount_flags {
	BOOT_DESC_MOUNT_READ_ONLY = 1 << 0,
	BOOT_DESC_MOUNT_FLAGS = (1 << 1) - 1,
};

/* A volume or share; mounted in order, the directory is made when missing. */
struct boot_desc_mount {
	struct wire_str source; /* disk serial; for fstype "virtiofs" the tag */
	struct wire_str fstype; /* "ext4", "xfs", "btrfs", "erofs", "virtiofs" … */
	struct wire_str target; /* absolute, no ".." */
	uint32_t flags;         /* enum boot_desc_mount_flags */
};

struct boot_desc {
	uint8_t mode;   /* enum boot_desc_mode */
	uint32_t flags; /* enum boot_desc_flags */
	uint8_t secret[BOOT_DESC_SECRET];
	uint8_t seed[BOOT_DESC_SEED];
	uint64_t realtime_ns; /* of the host, when this was written */
	uint8_t machine_id[BOOT_DESC_MACHINE_ID];
	uint64_t
		root_size_bytes; /* of the overlay's tmpfs; 0: the kernel's default (half the memory) */
	struct wire_str hostname; /* "" leaves it alone */
	struct wire_str
		init; /* INIT: "" tries /sbin/init, /lib/systemd/systemd, /init, /bin/init */
	struct wire_str user; /* COMMAND: of argv, as in EXEC */
	struct wire_str workdir;
	struct wire_strv argv;            /* COMMAND: run at once; empty: wait for EXEC with MAIN */
	struct wire_strv env;             /* of argv; in INIT mode of the image's init */
	struct boot_desc_network network; /* with BOOT_DESC_NETWORK; else nothing is encoded */
	uint32_t n_layers;                /* at least 1 */
	struct boot_desc_layer layers[BOOT_DESC_LAYERS_MAX]; /* lowest first */
	uint32_t n_mounts;
	struct boot_desc_mount mounts[BOOT_DESC_MOUNTS_MAX];
};

/* Returns the length; -ENOBUFS: does not fit SIZE or BOOT_DESC_MAX; -EINVAL: a field out of range. */
ssize_t boot_desc_encode(const struct boot_desc *d, void *buf, size_t size);

/* Its own part of either, for others that carry it. */
void boot_desc_xfer_network(struct wire *w, struct boot_desc_network *n);

/* 0, or -EBADMSG; LEN must be exact. Views in *RET stay valid as long as BUF is unchanged. */
int boot_desc_decode(const void *buf, size_t len, struct boot_desc *ret);
