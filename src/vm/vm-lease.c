#include "vm-lease.h"

#include <errno.h>
#include <unistd.h>

#include "cleanup.h"
#include "lease.h"
#include "vm-dirs.h"

/* CIDs are unique per realm and never touch the host's own vsock. */
static const struct lease_range cid_range = { "cid", 1024, 1 << 20 };

/* Above systemd's container range and below the reserved end (systemd UIDS-GIDS.md). */
static const struct lease_range uid_range = { "uid", 0x70000000, 1 << 16 };

static int lease_in(const struct vm_dirs *dirs, const struct lease_range *range,
	const char *vm_name, uint32_t *ret)
{
	CLEANUP_CLOSE int leases = vm_dirs_open_state(dirs, "leases");

	return leases < 0 ? leases : lease_number(leases, range, vm_name, ret);
}

int vm_lease_cid(const struct vm_dirs *dirs, const char *vm_name, uint32_t *ret)
{
	return lease_in(dirs, &cid_range, vm_name, ret);
}

int vm_lease_uid(const struct vm_dirs *dirs, const char *vm_name, uint32_t *ret)
{
	return lease_in(dirs, &uid_range, vm_name, ret);
}

int vm_lease_drop(const struct vm_dirs *dirs, const char *vm_name)
{
	CLEANUP_CLOSE int leases = vm_dirs_open_state(dirs, "leases");

	if (leases < 0)
		return leases;
	(void)lease_forget(leases, &cid_range, vm_name);
	(void)lease_forget(leases, &uid_range, vm_name);
	return vm_dirs_remove_vm(dirs, vm_name);
}
