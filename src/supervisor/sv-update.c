#include "sv-update.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "path.h"
#include "store.h"
#include "str.h"
#include "sv-lend.h"
#include "sv.h"

/* What is not there any more is no reason to end: the guest boots again with what it has. */
static bool image_differs(const struct sv *sv, struct store *store)
{
	CLEANUP(store_image_finish) struct store_image image = { 0 };
	CLEANUP_FREE char *reason = NULL;

	return store_find_image(store, sv->spec.image, &image, &reason) == 0 &&
	       !str_eq(image.digest, sv->status.image_digest);
}

static bool kernel_differs(const struct sv *sv, struct store *store)
{
	CLEANUP(store_kernel_finish) struct store_kernel kernel = { 0 };
	CLEANUP_FREE char *reason = NULL;

	return store_find_kernel(store, sv->spec.kernel, &kernel, &reason) == 0 &&
	       !str_eq(kernel.digest, sv->status.kernel_digest);
}

bool sv_update_is_due(const struct sv *sv)
{
	CLEANUP(store_closep) struct store *store = NULL;

	if (geteuid() != 0 || !sv->spec.keep || sv->owned || !sv->status.image_digest)
		return false;
	/* one of our own: in the next image of this process nobody has opened it */
	return sv_lend_store(sv, &store) == 0 &&
	       (image_differs(sv, store) || kernel_differs(sv, store));
}

/* Children are born in the namespace of the incarnation that is over, where nobody can be any more: unshare(2). */
static int leave_namespace(void)
{
	CLEANUP_CLOSE int own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);

	return own < 0 || setns(own, CLONE_NEWPID) < 0 ? -errno : 0;
}

int sv_update_exec(const char *name)
{
	CLEANUP_FREE char *program = NULL;
	const char *argv[] = { "uvms-supervisor", name, NULL };
	int r = path_find_helper("uvms-supervisor", &program);

	if (r == 0)
		r = leave_namespace();
	if (r < 0)
		return r;
	execv(program, (char *const *)argv);
	return -errno;
}
