/*
 * Directories of the host (virtio-fs, by virtiofsd) and the files of images (virtio-pmem), mounted in the guest while
 * the VM runs. They last until they are detached or the VM ends; the VM's next start is without them.
 *
 * Theory of operation. A table of SV_SHARES_MAX, and one change at a time, whose phases are what is waited for:
 *
 *	attach   virtiofsd says which it is → it serves → the VMM has the device → the agent has mounted it
 *	detach   the agent has unmounted it → the VMM has no device → virtiofsd ends
 *
 * What fails is undone in reverse before it is told; what cannot be undone (the VMM does not get rid of a device) stays
 * in the table and in the status, with what is wrong, and can be detached again. The guest's reboot: the agent is told of
 * each again. Neither file system knows of the other: an image is found in the guest by its size, so no two of one size
 * are attached.
 *
 * virtiofsd ends: with a VMM that dials it anew (also at each boot of the guest) there is another; else the device leads
 * nowhere, the status says so, and detach takes the device away before the mount.
 */
#pragma once

#include <stdbool.h>

struct control_call;
struct sv;

/* What is asked for, borrowed: one of both. */
struct sv_share_ask {
	const char *directory; /* of the host, absolute */
	const char *image;
	const char *path; /* in the guest */
};

void sv_share_init(struct sv *sv);

/* Answer CALL, now or later. IS_IMAGE: which kind is at PATH. */
void sv_share_attach(struct sv *sv, struct control_call *call, const struct sv_share_ask *ask);
void sv_share_detach(struct sv *sv, struct control_call *call, const char *path, bool is_image);

/* The guest has booted again: it does not know of them. */
void sv_share_again(struct sv *sv);

/* The guest has given up the device ID, for which nobody waited. */
void sv_share_gone(struct sv *sv, const char *id);

/* CALL is gone; the VM ends. */
void sv_share_forget(struct sv *sv, struct control_call *call);
void sv_share_finish(struct sv *sv);
