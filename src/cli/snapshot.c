#include "snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "cli-store.h"
#include "cli.h"
#include "clock.h"
#include "config.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "oci.h"
#include "path.h"
#include "snapshot-parts.h"
#include "store-blob.h"
#include "store.h"
#include "str.h"
#include "vm-spec.h"
#include "vmm-program.h"
#include "vmm-version.h"

#define SNAPSHOT_VERSION  1
#define SNAPSHOT_MANIFEST "manifest.json"
#define CPUINFO_MAX       (4 << 20)

static const struct json_field fields[] = {
	JSON_FIELD(struct snapshot, version, JSON_U32),
	JSON_FIELD(struct snapshot, vm, JSON_STR, .max = 64),
	JSON_FIELD(struct snapshot, uvms, JSON_STR, .max = 64),
	JSON_FIELD(struct snapshot, vmm, JSON_STR, .max = VMM_VERSION_TEXT_MAX),
	JSON_FIELD(struct snapshot, cpu, JSON_STR, .max = 16384),
	JSON_FIELD(struct snapshot, kernel, JSON_STR, .max = 128),
	JSON_FIELD(struct snapshot, modules, JSON_STR, .max = 128),
	JSON_FIELD(struct snapshot, layers, JSON_STRV, .max = 64),
	JSON_FIELD(struct snapshot, files, JSON_STRV, .max = SNAPSHOT_FILES_MAX),
	JSON_FIELD(struct snapshot, created_usec, JSON_U64),
};

void snapshot_finish(struct snapshot *s)
{
	json_codec_release(fields, ARRAY_SIZE(fields), s);
}

static bool is_snapshot(const char *name)
{
	return str_is_name(name, strlen(name), VM_SNAPSHOT_NAME_MAX);
}

int snapshot_open(const char *name)
{
	CLEANUP_CLOSE int all = vm_dirs_open_state(cli_dirs(), VM_SNAPSHOTS);
	int fd;

	if (all < 0)
		return all;
	if (!is_snapshot(name))
		return -EINVAL;
	fd = openat(all, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

int snapshot_list(char ***ret)
{
	CLEANUP_CLOSE int all = vm_dirs_open_state(cli_dirs(), VM_SNAPSHOTS);
	char **names = NULL, **to;
	int r = all < 0 ? all : file_list_at(all, ".", SNAPSHOTS_MAX, &names);

	if (r < 0)
		return r;
	to = names;
	for (char **n = names; n && *n; n++) {
		if (is_snapshot(*n))
			*to++ = *n;
		else
			free(*n);
	}
	if (to)
		*to = NULL;
	*ret = names;
	return 0;
}

/* what is */

/* The first processor's: all of them are alike, or no guest could be moved between them. */
static char *cpu_line(const char *text, const char *key)
{
	const char *at = strstr(text, key), *colon = at ? strchr(at, ':') : NULL;

	return colon ? strndup(colon + 2, strcspn(colon + 2, "\n")) : NULL;
}

static char *read_cpu(void)
{
	CLEANUP_FREE char *text = NULL, *model = NULL, *flags = NULL;

	if (file_read_at(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MAX, &text, NULL) < 0)
		return NULL;
	model = cpu_line(text, "model name");
	flags = cpu_line(text, "\nflags");
	return str_printf("%s; %s", str_or(model, "?"), str_or(flags, ""));
}

/* What made the state: the same version alone reads it for sure. */
static char *read_vmm(const char *backend)
{
	CLEANUP_FREE char *program = NULL;
	char text[VMM_VERSION_TEXT_MAX];
	bool ch = str_eq(backend, "ch");

	if (!ch && !str_eq(backend, "qemu"))
		return strdup(str_or(backend, "?"));
	if (vmm_program_find(ch ? VMM_PROGRAM_CH : VMM_PROGRAM_QEMU,
		    ch ? VMM_PROGRAM_CH_ENV : VMM_PROGRAM_QEMU_ENV, &program) < 0 ||
		vmm_version_ask(cli_dirs(), program, text) < 0)
		return strdup("not installed");
	return strdup(text);
}

struct part {
	const char *dir; /* and a slash */
	int (*digest)(int fd, char ret[static STORE_DIGEST_MAX + 1]);
};

static const struct part parts[] = {
	{ "vmm/", store_blob_digest },
	{ SNAPSHOT_VOLUMES "/", snapshot_parts_digest },
	{ SNAPSHOT_CREDENTIALS "/", store_blob_digest },
};

static const char *const singles[] = { "spec.json", "secret" };

static int file_line(int dir, const struct part *part, const char *name, char ***files)
{
	/* the VMM could have made anything there, a FIFO that nobody writes to among them */
	CLEANUP_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char digest[STORE_DIGEST_MAX + 1];
	struct stat st;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EBADMSG;
	r = part->digest(fd, digest);
	return r < 0 ? r
		     : strv_pushf(files, "%s %lld %s%s", digest, (long long)st.st_size, part->dir,
			       name);
}

/* What is behind its second blank. */
static const char *name_of(const char *line)
{
	const char *size = strchr(line, ' ');

	return size ? strchr(size + 1, ' ') : line;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(name_of(*(char *const *)a), name_of(*(char *const *)b));
}

static int read_part(int dir_fd, size_t part, char ***files)
{
	CLEANUP_CLOSE int dir =
		openat(dir_fd, parts[part].dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP(strv_freep) char **names = NULL;
	int r;

	if (dir < 0)
		return errno == ENOENT && part > 0 ? 0 : -errno;
	r = file_list_at(dir, ".", SNAPSHOT_FILES_MAX, &names);
	for (char **n = names; r == 0 && n && *n; n++)
		r = file_line(dir, &parts[part], *n, files);
	return r;
}

/* In order, so that two lists can be compared line by line. */
static int read_files(int dir_fd, char ***ret)
{
	CLEANUP(strv_freep) char **files = NULL;
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(parts); i++)
		r = read_part(dir_fd, i, &files);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(singles); i++)
		r = file_line(dir_fd, &(struct part){ "", store_blob_digest }, singles[i], &files);
	if (r < 0)
		return r;
	if (files)
		qsort(files, strv_length(files), sizeof *files, by_name);
	*ret = TAKE_PTR(files);
	return 0;
}

/*
 * What is digested is on disk, and nobody's who could change it: the VM goes on, and its user may be another VM's one
 * day. The VMM could have made anything.
 */
static int settle_file(int dir, const char *name)
{
	CLEANUP_CLOSE int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_nlink != 1)
		return -EBADMSG;
	if (geteuid() == 0 && (fchown(fd, 0, 0) < 0 || fchmod(fd, st.st_mode & 0600) < 0))
		return -errno;
	return fsync(fd) < 0 ? -errno : 0;
}

static int settle_part(int dir_fd, const struct part *part)
{
	CLEANUP_CLOSE int dir =
		openat(dir_fd, part->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	CLEANUP(strv_freep) char **names = NULL;
	int r;

	if (dir < 0)
		return errno == ENOENT ? 0 : -errno;
	if (geteuid() == 0 && fchown(dir, 0, 0) < 0)
		return -errno;
	r = file_list_at(dir, ".", SNAPSHOT_FILES_MAX, &names);
	for (char **n = names; r == 0 && n && *n; n++)
		r = settle_file(dir, *n);
	return r < 0 ? r : fsync(dir) < 0 ? -errno : 0;
}

static int settle(int dir_fd)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(parts); i++)
		r = settle_part(dir_fd, &parts[i]);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(singles); i++)
		r = settle_file(dir_fd, singles[i]);
	return r;
}

static int write_manifest(int dir_fd, const char *text)
{
	int r = file_write_at(dir_fd, SNAPSHOT_MANIFEST, text, strlen(text), 0600);

	if (r == 0)
		r = settle_file(dir_fd, SNAPSHOT_MANIFEST);
	return r < 0 ? r : fsync(dir_fd) < 0 ? -errno : 0;
}

static int read_store(const struct vm_spec *spec, struct snapshot *s, char **ret_reason)
{
	struct store_image image = { 0 };
	struct store_kernel kernel = { 0 };
	CLEANUP(store_closep) struct store *store = cli_store();
	int r = store_find_image(store, spec->image, &image, ret_reason);

	if (r == -ENOENT)
		*ret_reason = str_printf("its image %.19s is not in the store", spec->image);
	if (r == 0)
		r = store_find_kernel(store, spec->kernel, &kernel, ret_reason);
	if (r == -ENOENT && !*ret_reason)
		*ret_reason =
			str_printf("its kernel %s is not in the store", str_or(spec->kernel, "?"));
	if (r == 0) {
		s->layers = TAKE_PTR(image.layers);
		s->kernel = TAKE_PTR(kernel.kernel);
		s->modules = TAKE_PTR(kernel.modules);
	}
	store_image_finish(&image);
	store_kernel_finish(&kernel);
	return r;
}

/* All but the files. */
static int read_now(const struct vm_spec *spec, struct snapshot *s, char **ret_reason)
{
	*s = (struct snapshot){ .version = SNAPSHOT_VERSION,
		.vm = strdup(spec->name),
		.uvms = strdup(UVMS_VERSION),
		.vmm = read_vmm(spec->backend),
		.cpu = read_cpu(),
		.created_usec = clock_usec(CLOCK_REALTIME) };
	if (!s->vm || !s->uvms || !s->vmm || !s->cpu)
		return -ENOMEM;
	return read_store(spec, s, ret_reason);
}

int snapshot_begin(int dir_fd, const struct vm_spec *spec, struct snapshot *ret, char **ret_reason)
{
	int r = read_now(spec, ret, ret_reason);

	if (r == 0)
		r = snapshot_parts_keep_credentials(dir_fd, spec);
	return r < 0 ? r : vm_spec_write(dir_fd, spec);
}

int snapshot_complete(int dir_fd, struct snapshot *s)
{
	CLEANUP(json_codec_putp) struct json_object *o = NULL;
	const char *text;
	int r = settle(dir_fd);

	if (r == 0)
		r = read_files(dir_fd, &s->files);
	if (r < 0)
		return r;
	o = json_codec_encode(fields, ARRAY_SIZE(fields), s);
	text = o ? json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY) : NULL;
	return text ? write_manifest(dir_fd, text) : -ENOMEM;
}

int snapshot_read(int dir_fd, struct snapshot *ret)
{
	CLEANUP(json_codec_putp) struct json_object *o = NULL;
	CLEANUP_FREE char *text = NULL;
	struct snapshot s = { 0 };
	size_t len;
	int r = file_read_at(dir_fd, SNAPSHOT_MANIFEST, 1 << 20, &text, &len);

	if (r < 0)
		return r;
	r = json_codec_parse(text, len, &o);
	if (r == 0)
		r = json_codec_decode(o, fields, ARRAY_SIZE(fields), &s, NULL);
	if (r == 0 &&
		(!s.vm || !s.vmm || !s.cpu || !s.kernel || !s.modules || !s.layers || !s.files))
		r = -EBADMSG;
	if (r < 0) {
		snapshot_finish(&s);
		return -EBADMSG;
	}
	*ret = s;
	return 0;
}

/* what differs */

static char *strv_difference(char *const *then, char *const *now, const char *what)
{
	for (size_t i = 0; then[i] || (now && now[i]); i++) {
		if (!then[i] || !now || !now[i] || !str_eq(then[i], now[i]))
			return str_printf("%s %zu was %s and is %s", what, i,
				str_or(then[i], "not there"), now && now[i] ? now[i] : "not there");
		if (!then[i + 1] && !now[i + 1])
			break;
	}
	return NULL;
}

/* The first flag that is not there any more; a model that is another one differs by name. */
static char *cpu_difference(const char *then, const char *now)
{
	size_t model = strcspn(then, ";");
	CLEANUP_FREE char *words = NULL,
			  *have = str_printf(" %s ", strchr(now, ';') ? strchr(now, ';') + 2 : "");
	char *save = NULL;

	if (strncmp(then, now, model + 1) != 0)
		return str_printf("the CPU was %.*s and is %.*s", (int)model, then,
			(int)strcspn(now, ";"), now);
	words = strdup(then + model + 1);
	if (!words || !have)
		return strdup("out of memory");
	for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		CLEANUP_FREE char *word = str_printf(" %s ", w);

		if (!word || !strstr(have, word))
			return str_printf("the CPU has no %s any more", w);
	}
	return NULL;
}

static char *difference(const struct snapshot *s, const struct snapshot *now)
{
	if (s->version != SNAPSHOT_VERSION)
		return str_printf(
			"it is of format %u, this uvms knows %d", s->version, SNAPSHOT_VERSION);
	if (!str_eq(s->vmm, now->vmm))
		return str_printf("the VMM was \"%s\" and is \"%s\"", s->vmm, now->vmm);
	if (!str_eq(s->kernel, now->kernel))
		return str_printf("the kernel was %.19s and is %.19s", s->kernel, now->kernel);
	if (!str_eq(s->modules, now->modules))
		return str_printf(
			"the kernel's modules were %.19s and are %.19s", s->modules, now->modules);
	return cpu_difference(s->cpu, now->cpu);
}

int snapshot_check(
	int dir_fd, const struct snapshot *s, const struct vm_spec *spec, char **ret_reason)
{
	CLEANUP(snapshot_finish) struct snapshot now = { 0 };
	int r;

	if (!str_eq(s->vm, spec->name)) {
		*ret_reason = strdup("manifest and spec.json speak of different VMs");
		return -EBADMSG;
	}
	r = read_now(spec, &now, ret_reason);
	if (r < 0)
		return r == -ENOMEM ? r : -ESTALE;
	*ret_reason = difference(s, &now);
	if (!*ret_reason)
		*ret_reason = strv_difference(s->layers, now.layers, "layer");
	if (*ret_reason)
		return -ESTALE;
	r = read_files(dir_fd, &now.files);
	if (r < 0)
		return r;
	*ret_reason = strv_difference(s->files, now.files, "file");
	return *ret_reason ? -EBADMSG : 0;
}
