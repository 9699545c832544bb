/*
 * One life of a name, without a VM: leases, lock, incarnation, spec, last words, end. Whatever fails on
 * the way is undone here; status 1 then. Prints the CID on success.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "runtime-dir.h"
#include "str.h"
#include "vm-dirs.h"
#include "vm-lease.h"
#include "vm-spec.h"
#include "vm-status.h"

static int write_spec(int vm)
{
	CLEANUP(vm_spec_finish) struct vm_spec spec;
	int r;

	vm_spec_init(&spec);
	r = str_set(&spec.name, "web");
	if (r == 0)
		r = str_set(&spec.image, "none");
	if (r == 0)
		r = str_set(&spec.backend, "null");
	if (r == 0)
		r = strv_push(&spec.command, "true");
	return r < 0 ? r : vm_spec_write(vm, &spec);
}

static int live(const struct vm_dirs *dirs, const struct runtime_dir *rt)
{
	char name[RUNTIME_DIR_INCARNATION_MAX];
	CLEANUP_CLOSE int dir = runtime_dir_begin(rt, name), vm = -EBADF;
	CLEANUP(vm_status_finish) struct vm_status s = { 0 };
	int r;

	if (dir < 0)
		return dir;
	vm = vm_dirs_open_vm(dirs, "web", true);
	if (vm < 0)
		return vm;
	r = write_spec(vm);
	return r < 0 ? r : runtime_dir_keep(dir, vm, &s);
}

static int whole_life(const struct vm_dirs *dirs)
{
	struct runtime_dir rt;
	char holder[16];
	uint32_t cid, uid;
	int r;

	r = vm_lease_cid(dirs, "web", &cid);
	if (r == 0)
		r = vm_lease_uid(dirs, "web", &uid);
	if (r == 0)
		r = runtime_dir_lock(dirs, "web", &rt, holder);
	if (r < 0)
		return r;
	r = live(dirs, &rt);
	runtime_dir_end(dirs, "web", &rt);
	if (r == 0)
		printf("%u %u\n", cid, uid);
	return r;
}

int main(void)
{
	CLEANUP(vm_dirs_finish) struct vm_dirs dirs = { 0 };
	int r = vm_dirs_init(&dirs);

	if (r == 0)
		r = whole_life(&dirs);
	if (r < 0)
		fprintf(stderr, "anomaly-names: %s\n", strerror(-r));
	return r < 0;
}
