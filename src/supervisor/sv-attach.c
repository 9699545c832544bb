#include "sv-attach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "str.h"
#include "sv-change.h"
#include "sv.h"
#include "vm-volume.h"
#include "volume.h"

static struct sv_disk *disk_find(struct sv *sv, const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(sv->disks); i++) {
		if (sv->disks[i].fd >= 0 && str_eq(sv->disks[i].name, name))
			return &sv->disks[i];
	}
	return NULL;
}

static bool slot_is_free(const struct sv *sv, size_t slot)
{
	if (sv->disks[slot].fd >= 0 || (sv->link.attached && sv->link.slot == slot))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(sv->shares); i++) {
		if (sv->shares[i].kind != SV_SHARE_NONE && sv->shares[i].slot == slot)
			return false;
	}
	return true;
}

int sv_attach_slot(const struct sv *sv)
{
	for (size_t i = 0; i < sv->spec.hotplug_slots; i++) {
		if (slot_is_free(sv, i))
			return (int)i;
	}
	return -ENOSPC;
}

static void refuse(struct control_call *call, int error, const char *what, const char *next)
{
	control_call_error(call, error, control_error_words(what, NULL, next));
}

/* A VMM that opens the disk itself does so as the VM: it owns the file, and may pass the directories. */
static int disk_give(struct sv *sv, int volumes, const char *name, int fd, char **ret_path)
{
	if (geteuid() == 0 && (fchown(fd, sv->status.uid, sv->status.uid) < 0 ||
				      fchmodat(volumes, name, 0711, 0) < 0))
		return -errno;
	*ret_path = str_printf("%s/volumes/%s/disk", sv->dirs.state, name);
	return *ret_path ? 0 : -ENOMEM;
}

static int disk_open(struct sv *sv, const char *name, char **ret_path, char **ret_reason)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(&sv->dirs, "volumes"), fd = -EBADF;
	struct volume v;
	int r;

	if (volumes < 0)
		return volumes;
	/* it is made by who asks: that takes its time */
	r = volume_look(volumes, name, &v);
	if (r == -ENOENT)
		*ret_reason = str_printf("there is no volume %s", name);
	if (r < 0)
		return r;
	volume_finish(&v);
	fd = volume_open(volumes, name, 0, ret_reason);
	if (fd < 0)
		return fd;
	r = disk_give(sv, volumes, name, fd, ret_path);
	return r < 0 ? r : TAKE_FD(fd);
}

/* What status tells. */
static void note(struct sv *sv)
{
	char **names = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(sv->disks); i++) {
		if (sv->disks[i].fd >= 0)
			(void)strv_push(&names, sv->disks[i].name);
	}
	strv_free(sv->status.attached);
	sv->status.attached = names;
}

static void attach_ended(struct sv *sv, int error, const char *reason)
{
	if (error == 0)
		sv->disks[sv->disk.slot] = sv->disk;
	else
		fd_close(sv->disk.fd);
	sv->disk.fd = -EBADF;
	note(sv);
}

static void detach_ended(struct sv *sv, int error, const char *reason)
{
	struct sv_disk *d = &sv->disks[sv->disk.slot];

	if (error == 0)
		d->fd = fd_close(d->fd);
	note(sv);
}

static void attach(struct sv *sv, struct control_call *call, const char *name, uint32_t slot)
{
	CLEANUP_FREE char *path = NULL, *reason = NULL, *id = str_printf("v-%s", name);
	struct sv_disk *d = &sv->disk;
	int r = disk_open(sv, name, &path, &reason);

	if (r < 0 || !id) {
		fd_close(r);
		refuse(call, r < 0 ? r : -ENOMEM, reason ? reason : strerror(-r), NULL);
		return;
	}
	*d = (struct sv_disk){ .fd = r, .slot = slot };
	strcpy(d->name, name);
	sv_change_ask(sv, call,
		&(struct vmm_op){ .kind = VMM_OP_ADD_DISK,
			.id = id,
			.serial = d->name,
			.path = path,
			.fd = d->fd,
			.slot = slot },
		attach_ended);
}

void sv_attach_ask(struct sv *sv, struct control_call *call, const char *name)
{
	int slot = sv_attach_slot(sv);

	if (vm_volume_check_name(name) < 0 || strlen(name) > VMM_SERIAL_MAX)
		refuse(call, -EINVAL, "a volume that is attached has a name of at most 20 bytes",
			NULL);
	else if (sv->change.busy || sv_share_is_under_way(sv))
		refuse(call, -EBUSY, "another change is under way: try again", NULL);
	else if (disk_find(sv, name))
		refuse(call, -EBUSY, "it is attached already", NULL);
	else if (slot < 0)
		refuse(call, -EOPNOTSUPP, "it has no free slot for another device",
			"--hotplug-slots of uvms run makes some");
	else
		attach(sv, call, name, (uint32_t)slot);
}

void sv_detach_ask(struct sv *sv, struct control_call *call, const char *name)
{
	struct sv_disk *d = disk_find(sv, name);
	CLEANUP_FREE char *id = str_printf("v-%s", name);

	if (!d || !id) {
		refuse(call, d ? -ENOMEM : -ENOENT, "no such volume is attached", NULL);
		return;
	}
	if (sv_change_is_under_way(sv)) {
		refuse(call, -EBUSY, "another change is under way: try again", NULL);
		return;
	}
	sv->disk = (struct sv_disk){ .fd = -EBADF, .slot = d->slot };
	if (d->gone) {
		detach_ended(sv, 0, NULL);
		sv_status_save(sv);
		control_call_reply(call, NULL, -EBADF);
		return;
	}
	sv_change_ask(sv, call,
		&(struct vmm_op){ .kind = VMM_OP_REMOVE,
			.added = VMM_OP_ADD_DISK,
			.id = id,
			.slot = d->slot },
		detach_ended);
}

void sv_attach_gone(struct sv *sv, const char *id)
{
	struct sv_disk *d = str_has_prefix(id, "v-") ? disk_find(sv, id + 2) : NULL;

	if (d)
		d->gone = true;
}

void sv_attach_init(struct sv *sv)
{
	sv->disk.fd = -EBADF;
	for (size_t i = 0; i < ARRAY_SIZE(sv->disks); i++)
		sv->disks[i].fd = -EBADF;
}

void sv_attach_finish(struct sv *sv)
{
	sv->disk.fd = fd_close(sv->disk.fd);
	for (size_t i = 0; i < ARRAY_SIZE(sv->disks); i++)
		sv->disks[i].fd = fd_close(sv->disks[i].fd);
}
