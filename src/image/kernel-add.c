#include "kernel-add.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "kernel-file.h"
#include "kernel-modules.h"
#include "kernel-source.h"
#include "oci.h"
#include "store-edit.h"
#include "store-temp.h"
#include "str.h"
#include "tool.h"

static int kernel_read(int fd, struct kernel_file *ret, char **ret_reason)
{
	struct stat st;
	void *p;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size == 0)
		r = -ENOEXEC;
	else {
		p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		if (p == MAP_FAILED)
			return -errno;
		r = kernel_file_read(p, (size_t)st.st_size, ret);
		munmap(p, (size_t)st.st_size);
	}
	if (r == -ENOEXEC)
		*ret_reason = strdup("it is neither a bzImage nor an ELF file with a PVH entry");
	return r;
}

static int kernel_check_release(
	const struct kernel_file *file, const struct kernel_modules *modules, char **ret_reason)
{
	if (!file->release[0] && !modules->release) {
		*ret_reason = strdup("neither the file nor a module says which release it is");
		return -EINVAL;
	}
	if (file->release[0] && modules->release && !str_eq(file->release, modules->release)) {
		*ret_reason = str_printf("the kernel is %s, but the modules are for %s",
			file->release, modules->release);
		return -EINVAL;
	}
	return 0;
}

static int kernel_blobs(struct store_temp temps[2], const struct kernel_file *file,
	const struct kernel_modules *modules, struct store_edit_blob blobs[2])
{
	int r;

	r = fd_write_all(temps[0].fd, file->data, file->len);
	if (r >= 0)
		r = kernel_modules_archive(modules, temps[1].fd);
	blobs[0] = (struct store_edit_blob){ .media_type = OCI_VMLINUX, .fd = temps[0].fd };
	blobs[1] = (struct store_edit_blob){ .media_type = OCI_MODULES, .fd = temps[1].fd };
	if (r >= 0)
		r = store_edit_seal(&blobs[0]);
	return r < 0 ? r : store_edit_seal(&blobs[1]);
}

static int kernel_store(struct store *s, const struct kernel_add *k, const struct kernel_file *file,
	const struct kernel_modules *modules, struct kernel_added *ret, char **ret_reason)
{
	CLEANUP(store_temp_finish) struct store_temp kernel = STORE_TEMP_IDLE;
	CLEANUP(store_temp_finish) struct store_temp archive = STORE_TEMP_IDLE;
	struct store_edit_blob blobs[2];
	int r;

	r = store_temp_file(s, &kernel);
	if (r >= 0)
		r = store_temp_file(s, &archive);
	if (r >= 0)
		r = kernel_blobs((struct store_temp[]){ kernel, archive }, file, modules, blobs);
	if (r >= 0)
		r = str_set(&ret->release, file->release[0] ? file->release : modules->release);
	if (r >= 0)
		r = str_set(&ret->name, k->name ? k->name : ret->release);
	if (r >= 0 && !file->is_elf)
		r = str_set(&ret->note, file->note);
	if (r < 0)
		return r;
	if (oci_name_problem(ret->name)) {
		*ret_reason = str_printf("\"%s\" cannot be its name (%s): give one with --name",
			ret->name, oci_name_problem(ret->name));
		return -EINVAL;
	}
	ret->n_modules = modules->n;
	ret->kernel_bytes = blobs[0].size_bytes;
	ret->modules_bytes = blobs[1].size_bytes;
	struct store_edit e = { .kind = STORE_INDEX_KERNEL,
		.name = ret->name,
		.release = ret->release,
		.blobs = blobs,
		.n_blobs = 2 };
	return store_edit_add(s, &e, ret->digest, ret_reason);
}

static int kernel_add_source(struct store *s, const struct kernel_add *k,
	const struct kernel_source *source, struct kernel_added *ret, char **ret_reason)
{
	CLEANUP(kernel_file_finish) struct kernel_file file = { 0 };
	CLEANUP(kernel_modules_finish) struct kernel_modules modules = { 0 };
	int r;

	if (k->say)
		k->say("unpacking the kernel and collecting its modules");
	r = kernel_read(source->kernel, &file, ret_reason);
	if (r >= 0)
		r = kernel_modules_load(
			source->modules, kernel_modules_wanted, &modules, ret_reason);
	if (r >= 0)
		r = kernel_check_release(&file, &modules, ret_reason);
	return r < 0 ? r : kernel_store(s, k, &file, &modules, ret, ret_reason);
}

static int kernel_add_held(
	struct store *s, const struct kernel_add *k, struct kernel_added *ret, char **ret_reason)
{
	CLEANUP(kernel_source_finish) struct kernel_source source = KERNEL_SOURCE_IDLE;
	int r;

	if (k->from_deb)
		r = kernel_source_deb(s, k->from_deb, k->say, &source, ret_reason);
	else if (k->from_image)
		r = kernel_source_image(s, k->from_image, k->say, &source, ret_reason);
	else if (k->from_boot)
		r = kernel_source_boot(k->from_boot, &source, ret_reason);
	else
		r = kernel_source_files(k->file, k->modules, &source, ret_reason);
	return r < 0 ? r : kernel_add_source(s, k, &source, ret, ret_reason);
}

int kernel_add(
	struct store *s, const struct kernel_add *k, struct kernel_added *ret, char **ret_reason)
{
	CLEANUP(kernel_added_finish) struct kernel_added added = { 0 };
	sigset_t before;
	int r;

	tool_signals_hold(&before);
	r = kernel_add_held(s, k, &added, ret_reason);
	tool_signals_release(&before);
	if (r < 0)
		return r;
	*ret = added;
	added = (struct kernel_added){ 0 };
	return 0;
}

void kernel_added_finish(struct kernel_added *k)
{
	free(k->name);
	free(k->release);
	free(k->note);
	*k = (struct kernel_added){ 0 };
}
