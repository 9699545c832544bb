/* What makes images: programs that are driven, and the subordinate ids of an ordinary user. */
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

#include "cleanup.h"
#include "doctor-package.h"
#include "doctor-parse.h"
#include "doctor-probe.h"
#include "doctor.h"
#include "file.h"
#include "path.h"
#include "str.h"
#include "vm-virtiofsd.h"

#define SUBIDS_NEEDED 65536

static void look_program(
	struct doctor_finding *f, const char *program, enum doctor_result result, const char *use)
{
	CLEANUP_FREE char *path = NULL, *remedy = NULL;

	if (path_find_program(program, &path) == 0) {
		doctor_found(f, DOCTOR_OK, NULL, "%s", path);
		return;
	}
	remedy = doctor_package_remedy(program);
	doctor_found(f, result, remedy, "%s is not installed: %s", program, use);
}

static void look_erofs(const struct doctor_host *host, struct doctor_finding *f)
{
	look_program(f, "mkfs.erofs", DOCTOR_WARNING, "no image can be built");
}

static void look_mmdebstrap(const struct doctor_host *host, struct doctor_finding *f)
{
	look_program(f, "mmdebstrap", DOCTOR_WARNING,
		"no image can be built from Debian packages (--from-debian)");
}

static unsigned long subids(const char *file, const char *name)
{
	CLEANUP_FREE char *text = NULL;

	if (file_read_at(AT_FDCWD, file, 1 << 20, &text, NULL) < 0)
		return 0;
	return doctor_parse_subids(text, name, getuid());
}

static void look_ids(const struct doctor_host *host, struct doctor_finding *f)
{
	struct passwd *pw = getpwuid(getuid());
	const char *name = pw ? pw->pw_name : "USER";
	CLEANUP_FREE char *remedy = NULL;

	if (host->is_root) {
		doctor_found(f, DOCTOR_OK, NULL, "root needs no subordinate ids");
		return;
	}
	look_program(f, "newuidmap", DOCTOR_WARNING, "no image can be built by an ordinary user");
	if (f->result != DOCTOR_OK)
		return;
	if (subids("/etc/subuid", name) >= SUBIDS_NEEDED &&
		subids("/etc/subgid", name) >= SUBIDS_NEEDED) {
		doctor_found(f, DOCTOR_OK, NULL, "%s has subordinate uids and gids", name);
		return;
	}
	remedy = str_printf(
		"as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s",
		name);
	doctor_found(f, DOCTOR_WARNING, remedy,
		"%s has no 65536 subordinate uids and gids: no image can be built", name);
}

static void look_skopeo(const struct doctor_host *host, struct doctor_finding *f)
{
	look_program(f, "skopeo", DOCTOR_WARNING, "no image can be pulled");
}

static void look_umoci(const struct doctor_host *host, struct doctor_finding *f)
{
	look_program(f, "umoci", DOCTOR_WARNING, "no image can be pulled");
}

static void look_mkfs_ext4(const struct doctor_host *host, struct doctor_finding *f)
{
	look_program(f, "mkfs.ext4", DOCTOR_WARNING, "no volume can be made");
}

static void look_passt(const struct doctor_host *host, struct doctor_finding *f)
{
	look_program(f, "passt", DOCTOR_WARNING, "no VM can have a network (--net=user, -p)");
}

static void look_virtiofsd(const struct doctor_host *host, struct doctor_finding *f)
{
	CLEANUP_FREE char *program = NULL, *line = NULL,
			  *remedy = doctor_package_remedy("virtiofsd");
	static const char use[] = "no directory can be shared (uvms attach --share)";
	const char *fault, *next;

	if (vm_virtiofsd_find(&program) < 0) {
		doctor_found(f, DOCTOR_WARNING, remedy, "virtiofsd is not installed: %s", use);
		return;
	}
	(void)doctor_probe_line(program, "--version", &line);
	fault = vm_virtiofsd_fault(vm_virtiofsd_tell(str_or(line, "")), &next);
	if (fault)
		doctor_found(f, DOCTOR_WARNING, next, "%s: %s: %s", program, fault, use);
	else
		doctor_found(f, DOCTOR_OK, NULL, "%s (%s)", str_or(line, "?"), program);
}

const struct doctor_check doctor_image_checks[] = {
	{ "mkfs.erofs", look_erofs },
	{ "mmdebstrap", look_mmdebstrap },
	{ "subordinate ids", look_ids },
	{ "skopeo", look_skopeo },
	{ "umoci", look_umoci },
	{ "mkfs.ext4", look_mkfs_ext4 },
	{ "passt", look_passt },
	{ "virtiofsd", look_virtiofsd },
	{ 0 },
};
