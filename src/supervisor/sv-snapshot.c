#include "sv-snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-error.h"
#include "control-server.h"
#include "file.h"
#include "str.h"
#include "sv-change.h"
#include "sv.h"

#define SNAPSHOT_SECRET "secret"
#define SNAPSHOT_VMM    "vmm"

/* Hidden ones too: a client completes it under such a name. */
static bool name_is_good(const char *name)
{
	const char *rest = *name == '.' ? name + 1 : name;

	return str_is_name(rest, strlen(rest), VM_SNAPSHOT_NAME_MAX);
}

static int snapshot_open(const struct sv *sv, const char *name)
{
	CLEANUP_CLOSE int all = vm_dirs_open_state(&sv->dirs, VM_SNAPSHOTS);
	int fd;

	if (all < 0)
		return all;
	fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static char *snapshot_path(const struct sv *sv, const char *name)
{
	return str_printf("%s/" VM_SNAPSHOTS "/%s/" SNAPSHOT_VMM, sv->dirs.state, name);
}

static int secret_write(const struct sv *sv, int dir)
{
	char hex[2 * AGENT_WIRE_SECRET + 1];
	int r;

	str_hex(hex, sv->secret, sizeof sv->secret);
	r = file_write_at(dir, SNAPSHOT_SECRET, hex, strlen(hex), 0600);
	explicit_bzero(hex, sizeof hex);
	return r;
}

static int secret_read(struct sv *sv, int dir)
{
	CLEANUP_FREE char *hex = NULL;
	size_t len;
	int r = file_read_at(dir, SNAPSHOT_SECRET, 2 * AGENT_WIRE_SECRET, &hex, &len);

	if (r < 0)
		return r;
	r = len == 2 * AGENT_WIRE_SECRET ? str_unhex(sv->secret, hex, sizeof sv->secret) : -EINVAL;
	explicit_bzero(hex, len);
	return r;
}

/* What cannot be done, or what the guest's memory does not hold and another start may find changed. */
static char *hindrance(const struct sv *sv)
{
	if (!(vmm_backend_caps(sv->backend) & VMM_CAP_SNAPSHOT))
		return str_printf(
			"a snapshot: not supported by back-end %s", vmm_backend_name(sv->backend));
	if (sv->spec.volumes || sv->status.attached)
		return strdup("a snapshot of a VM with volumes: not supported yet");
	if (sv->link.attached)
		return strdup(
			"a snapshot with an attached network: not supported; uvms detach --net");
	return NULL;
}

void sv_snapshot_ask(struct sv *sv, struct control_call *call, const char *name, bool look)
{
	CLEANUP_FREE char *path = snapshot_path(sv, name), *why = hindrance(sv);
	CLEANUP_CLOSE int dir = -EBADF;
	int r;

	if (why) {
		control_call_error(call, -EOPNOTSUPP, control_error_words(why, NULL, NULL));
		return;
	}
	dir = name_is_good(name) ? snapshot_open(sv, name) : -EINVAL;
	r = dir < 0 ? dir : !path ? -ENOMEM : look ? 0 : secret_write(sv, dir);
	if (r < 0)
		control_call_error(call, r, control_error_words(strerror(-r), NULL, NULL));
	else if (look)
		control_call_reply(call, NULL, -EBADF);
	else
		sv_change_ask(
			sv, call, &(struct vmm_op){ .kind = VMM_OP_SNAPSHOT, .path = path }, NULL);
}

int sv_snapshot_load(struct sv *sv, char **ret_reason)
{
	CLEANUP_CLOSE int dir =
		name_is_good(sv->restore) ? snapshot_open(sv, sv->restore) : -EINVAL;
	int r = dir < 0 ? dir : secret_read(sv, dir);

	if (r < 0) {
		*ret_reason =
			str_printf("the snapshot %s cannot be used: %s", sv->restore, strerror(-r));
		return r;
	}
	sv->restore_path = snapshot_path(sv, sv->restore);
	return sv->restore_path ? 0 : -ENOMEM;
}
