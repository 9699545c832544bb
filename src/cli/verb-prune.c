#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "control-error.h"
#include "fail.h"
#include "runtime-dir.h"
#include "snapshot.h"
#include "store-edit.h"
#include "store.h"
#include "str.h"
#include "verb-list.h"
#include "vm-event.h"
#include "vm-lease.h"
#include "vm-spec.h"
#include "vm-status.h"
#include "vm-volume.h"
#include "volume.h"

static bool arg_vms, arg_images, arg_volumes, arg_all, arg_dry_run, arg_quiet;

static const struct option_def options[] = {
	{ "vms", 0, NULL, OPTION_FLAG, &arg_vms, "VMs that do not run" },
	{ "images", 0, NULL, OPTION_FLAG, &arg_images,
		"images that no VM and no snapshot is made from" },
	{ "volumes", 0, NULL, OPTION_FLAG, &arg_volumes, "volumes that no VM is made with" },
	{ "all", 'a', NULL, OPTION_FLAG, &arg_all, "all of these" },
	{ "dry-run", 0, NULL, OPTION_FLAG, &arg_dry_run, "say what would go, and leave it" },
	{ "quiet", 'q', NULL, OPTION_FLAG, &arg_quiet, "say nothing" },
	{ 0 },
};

/* What is gathered before anything goes. */
struct pruning {
	struct store *store; /* owned */
	char **stopped;      /* owned, all: names */
	char **images;       /* digests that VMs which stay, and snapshots, are made from */
	char **volumes;      /* names that they are made with */
	uint64_t freed_bytes;
	int worst;
};

static void pruning_finish(struct pruning *p)
{
	store_close(p->store);
	strv_free(p->stopped);
	strv_free(p->images);
	strv_free(p->volumes);
}

static bool has(char **v, const char *s)
{
	for (; v && *v; v++) {
		if (str_eq(*v, s))
			return true;
	}
	return false;
}

static void say(const char *kind, const char *name)
{
	if (!arg_quiet)
		printf("%s %s %s\n", arg_dry_run ? "would remove" : "removed", kind, name);
}

static int keep_what_it_uses(struct pruning *p, const struct vm_spec *spec)
{
	struct store_image image = { 0 };
	CLEANUP_FREE char *reason = NULL;
	struct vm_volume volume;
	const char *why;
	int r = 0;

	if (store_find_image(p->store, spec->image, &image, &reason) == 0)
		r = strv_push(&p->images, image.digest);
	store_image_finish(&image);
	for (char **v = spec->volumes; r == 0 && v && *v; v++) {
		if (vm_volume_parse(*v, &volume, &why) == 0)
			r = strv_push(&p->volumes, volume.name);
	}
	return r;
}

/* A VM whose description cannot be read might use anything: then no image and no volume goes. */
static int look_at_vm(const char *name, void *userdata)
{
	CLEANUP_CLOSE int vm = -EBADF;
	CLEANUP(vm_spec_finish) struct vm_spec spec = { 0 };
	CLEANUP_FREE char *reason = NULL;
	struct pruning *p = userdata;
	struct vm_status s = { 0 };
	bool alive;
	int r;

	(void)runtime_dir_sweep(cli_dirs(), name);
	vm = vm_dirs_open_vm(cli_dirs(), name, false);
	if (vm < 0) /* an unnamed one, gone by the sweep */
		return 0;
	alive = vm_status_look(cli_dirs(), name, &s) == 0 && vm_status_is_alive(&s);
	vm_status_finish(&s);
	if (!alive && arg_vms)
		return strv_push(&p->stopped, name);
	r = vm_spec_read(vm, &spec, &reason);
	if (r < 0)
		return fail(UVMS_EXIT_FAILED, str_or(reason, strerror(-r)), "uvms rm it first",
			"the description of %s cannot be read: nothing is removed", name);
	return keep_what_it_uses(p, &spec);
}

/* One that cannot be read cannot be restored. */
static int look_at_snapshot(struct pruning *p, const char *name)
{
	CLEANUP_CLOSE int dir = snapshot_open(name);
	CLEANUP(vm_spec_finish) struct vm_spec spec = { 0 };
	CLEANUP_FREE char *reason = NULL;

	if (dir < 0 || vm_spec_read(dir, &spec, &reason) < 0)
		return 0;
	return strv_push(&p->images, spec.image);
}

static int look_at_snapshots(struct pruning *p)
{
	CLEANUP(strv_freep) char **names = NULL;
	int r = snapshot_list(&names);

	for (char **n = names; r == 0 && n && *n; n++)
		r = look_at_snapshot(p, *n);
	return r == 0 ? 0
		      : fail(UVMS_EXIT_FAILED, strerror(-r), NULL,
				"the snapshots cannot be listed: nothing is removed");
}

static void prune_vm(struct pruning *p, const char *name)
{
	struct runtime_dir rt;
	char holder[16];
	int r = 0;

	if (!arg_dry_run) {
		r = runtime_dir_lock(cli_dirs(), name, &rt, holder);
		if (r == -EBUSY) /* started meanwhile */
			return;
		if (r == 0) {
			r = vm_lease_drop(cli_dirs(), name);
			runtime_dir_end(cli_dirs(), name, &rt);
		}
		if (r == 0)
			(void)vm_event_append(
				cli_dirs(), &(struct vm_event){ .vm = name, .event = "removed" });
	}
	if (r == 0)
		say("VM", name);
	else
		p->worst = fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "%s cannot be removed", name);
}

static void prune_image(struct pruning *p, const char *ref)
{
	struct store_image image = { 0 };
	CLEANUP_FREE char *reason = NULL;
	int r = store_find_image(p->store, ref, &image, &reason);

	if (r == 0 && !has(p->images, image.digest)) {
		r = arg_dry_run ? 0 : store_edit_remove(p->store, STORE_INDEX_IMAGE, ref, &reason);
		if (r == 0)
			say("image", ref);
	}
	if (r < 0)
		p->worst = fail(UVMS_EXIT_FAILED, str_or(reason, strerror(-r)), NULL,
			"image %s cannot be removed", ref);
	store_image_finish(&image);
}

static void prune_images(struct pruning *p)
{
	CLEANUP(strv_freep) char **refs = NULL;
	CLEANUP_FREE char *reason = NULL;
	int r = store_edit_list(p->store, STORE_INDEX_IMAGE, &refs, &reason);

	if (r < 0)
		p->worst = cli_store_fail(r, reason, NULL, "images cannot be listed");
	for (char **ref = refs; ref && *ref; ref++)
		prune_image(p, *ref);
}

static void prune_volume(struct pruning *p, int volumes, const char *name)
{
	struct volume v = { 0 };
	int r = volume_look(volumes, name, &v);

	if (r == 0 && !v.in_use && !has(p->volumes, name)) {
		r = arg_dry_run ? 0 : volume_remove(volumes, name);
		if (r == 0) {
			say("volume", name);
			p->freed_bytes += v.used_bytes;
		}
	}
	if (r < 0 && r != -EBUSY && r != -ENOENT)
		p->worst = fail(
			UVMS_EXIT_FAILED, strerror(-r), NULL, "volume %s cannot be removed", name);
	volume_finish(&v);
}

static void prune_volumes(struct pruning *p)
{
	CLEANUP_CLOSE int volumes = vm_dirs_open_state(cli_dirs(), "volumes");
	CLEANUP(strv_freep) char **names = NULL;
	int r = volumes < 0 ? volumes : volume_list(volumes, &names);

	if (r < 0)
		p->worst =
			fail(UVMS_EXIT_FAILED, strerror(-r), NULL, "the volumes cannot be listed");
	for (char **n = names; n && *n; n++)
		prune_volume(p, volumes, *n);
}

static void prune_store(struct pruning *p)
{
	uint64_t bytes = 0;
	int r = store_edit_prune(p->store, arg_dry_run, &bytes);

	p->freed_bytes += bytes;
	if (r < 0)
		p->worst = fail(UVMS_EXIT_FAILED, strerror(-r),
			"uvms image ls finds what is broken", "the store cannot be swept");
}

static int run(int argc, char **argv)
{
	CLEANUP(pruning_finish) struct pruning p = { .store = cli_store() };
	CLEANUP_FREE char *size = NULL;
	int r;

	if (arg_all)
		arg_vms = arg_images = arg_volumes = true;
	r = cli_each_vm(look_at_vm, &p);
	if (r == 0)
		r = look_at_snapshots(&p);
	if (r)
		return r < 0 ? UVMS_EXIT_FAILED : r;
	for (char **n = p.stopped; n && *n; n++)
		prune_vm(&p, *n);
	if (arg_images)
		prune_images(&p);
	if (arg_volumes)
		prune_volumes(&p);
	prune_store(&p);
	size = cli_store_size(p.freed_bytes);
	if (!arg_quiet)
		printf("%s %s\n", str_or(size, "?"), arg_dry_run ? "would be freed" : "freed");
	return p.worst;
}

const struct verb verb_prune = {
	.name = "prune",
	.arguments = "[--vms] [--images] [--volumes] [-a] [--dry-run] [-q]",
	.summary = "remove what nobody needs any more",
	.description = "Without options: what killed VMs and builders left, and blobs of the store "
		       "that no image refers to.",
	.options = options,
	.min = 0,
	.max = 0,
	.run = run,
};
