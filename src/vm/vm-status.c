#include "vm-status.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cleanup.h"
#include "file.h"
#include "json-codec.h"
#include "lease.h"
#include "str.h"
#include "vm-dirs.h"
#include "vm-name.h"
#include "vm-spec.h"

#define VM_STATUS_TEXT_MAX (64 * 1024)

static const struct json_field status_fields[] = {
	JSON_FIELD(struct vm_status, name, JSON_STR),
	JSON_FIELD(struct vm_status, state, JSON_STR),
	JSON_FIELD(struct vm_status, image, JSON_STR),
	JSON_FIELD(struct vm_status, image_digest, JSON_STR),
	JSON_FIELD(struct vm_status, kernel_digest, JSON_STR),
	JSON_FIELD(struct vm_status, incarnation, JSON_STR),
	JSON_FIELD(struct vm_status, backend, JSON_STR),
	JSON_FIELD(struct vm_status, backend_reason, JSON_STR),
	JSON_FIELD(struct vm_status, accel, JSON_STR),
	JSON_FIELD(struct vm_status, vsock, JSON_STR),
	JSON_FIELD(struct vm_status, ready, JSON_STR),
	JSON_FIELD(struct vm_status, failed_units, JSON_STR, .max = 8192),
	JSON_FIELD(struct vm_status, outcome, JSON_STR),
	JSON_FIELD(struct vm_status, cause, JSON_STR),
	JSON_FIELD(struct vm_status, exit_source, JSON_STR),
	JSON_FIELD(struct vm_status, network, JSON_STR),
	JSON_FIELD(struct vm_status, restored, JSON_STR),
	JSON_FIELD(struct vm_status, snapshot, JSON_STR),
	JSON_FIELD(struct vm_status, isolation, JSON_STR),
	JSON_FIELD(struct vm_status, attached, JSON_STRV, .max = 64),
	JSON_FIELD(struct vm_status, stopped, JSON_STR),
	JSON_FIELD(struct vm_status, memory_bytes, JSON_U64),
	JSON_FIELD(struct vm_status, started_usec, JSON_U64),
	JSON_FIELD(struct vm_status, ready_usec, JSON_U64),
	JSON_FIELD(struct vm_status, stopped_usec, JSON_U64),
	JSON_FIELD(struct vm_status, console_dropped_bytes, JSON_U64),
	JSON_FIELD(struct vm_status, supervisor_pid, JSON_U32),
	JSON_FIELD(struct vm_status, vmm_pid, JSON_U32),
	JSON_FIELD(struct vm_status, vsockd_pid, JSON_U32),
	JSON_FIELD(struct vm_status, vsockd_replaced, JSON_U32),
	JSON_FIELD(struct vm_status, cpus, JSON_U32),
	JSON_FIELD(struct vm_status, cid, JSON_U32),
	JSON_FIELD(struct vm_status, uid, JSON_U32),
	JSON_FIELD(struct vm_status, exit_code, JSON_U32),
	JSON_FIELD(struct vm_status, boots, JSON_U32),
};

static const struct json_field mount_fields[] = {
	JSON_FIELD(struct vm_status_mount, path, JSON_STR),
	JSON_FIELD(struct vm_status_mount, kind, JSON_STR),
	JSON_FIELD(struct vm_status_mount, source, JSON_STR),
	JSON_FIELD(struct vm_status_mount, state, JSON_STR),
};

void vm_status_drop_mounts(struct vm_status *s)
{
	for (size_t i = 0; i < ARRAY_SIZE(s->mounts); i++)
		json_codec_release(mount_fields, ARRAY_SIZE(mount_fields), &s->mounts[i]);
	s->n_mounts = 0;
}

void vm_status_finish(struct vm_status *s)
{
	vm_status_drop_mounts(s);
	json_codec_release(status_fields, ARRAY_SIZE(status_fields), s);
}

int vm_status_add_mount(struct vm_status *s, const char *path, const char *kind, const char *source,
	const char *state)
{
	struct vm_status_mount *m = &s->mounts[s->n_mounts];

	if (s->n_mounts == ARRAY_SIZE(s->mounts))
		return 0;
	s->n_mounts++;
	if (str_set(&m->path, path) < 0 || str_set(&m->kind, kind) < 0 ||
		str_set(&m->source, source) < 0)
		return -ENOMEM;
	return str_set(&m->state, state);
}

static struct json_object *mounts_to_json(const struct vm_status *s)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < s->n_mounts; i++) {
		struct json_object *m =
			json_codec_encode(mount_fields, ARRAY_SIZE(mount_fields), &s->mounts[i]);

		if (m && json_object_array_add(array, m) == 0)
			continue;
		json_object_put(m);
		json_object_put(array);
		return NULL;
	}
	return array;
}

struct json_object *vm_status_to_json(const struct vm_status *s)
{
	struct json_object *obj = json_codec_encode(status_fields, ARRAY_SIZE(status_fields), s);
	struct json_object *mounts = obj && s->n_mounts > 0 ? mounts_to_json(s) : NULL;

	if (!obj || s->n_mounts == 0)
		return obj;
	if (mounts && json_object_object_add(obj, "mounts", mounts) == 0)
		return obj;
	json_object_put(mounts);
	json_object_put(obj);
	return NULL;
}

static int mounts_from_json(struct json_object *array, struct vm_status *s)
{
	size_t n = json_object_is_type(array, json_type_array) ? json_object_array_length(array)
							       : VM_STATUS_MOUNTS_MAX + 1;
	int r = n > VM_STATUS_MOUNTS_MAX ? -EINVAL : 0;

	for (size_t i = 0; r >= 0 && i < n; i++)
		r = json_codec_decode(json_object_array_get_idx(array, i), mount_fields,
			ARRAY_SIZE(mount_fields), &s->mounts[s->n_mounts++], NULL);
	return r;
}

int vm_status_write_at(int dirfd, const char *name, const struct vm_status *s)
{
	CLEANUP(json_codec_putp) struct json_object *obj = vm_status_to_json(s);
	const char *text = obj ? json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN) : NULL;

	if (!text)
		return -ENOMEM;
	return file_write_at(dirfd, name, text, strlen(text), 0644);
}

int vm_status_from_json(struct json_object *obj, struct vm_status *ret)
{
	struct vm_status s = { 0 };
	struct json_object *mounts = NULL;
	int r = 0;

	if (json_object_is_type(obj, json_type_object) &&
		json_object_object_get_ex(obj, "mounts", &mounts)) {
		r = mounts_from_json(mounts, &s);
		json_object_object_del(obj, "mounts");
	}
	if (r >= 0)
		r = json_codec_decode(obj, status_fields, ARRAY_SIZE(status_fields), &s, NULL);
	if (r < 0) {
		vm_status_finish(&s);
		return r;
	}
	*ret = s;
	return 0;
}

int vm_status_read_at(int dirfd, const char *name, struct vm_status *ret)
{
	CLEANUP(json_codec_putp) struct json_object *obj = NULL;
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	r = file_read_at(dirfd, name, VM_STATUS_TEXT_MAX, &text, &len);
	if (r == 0)
		r = json_codec_parse(text, len, &obj);
	return r < 0 ? r : vm_status_from_json(obj, ret);
}

bool vm_status_is_alive(const struct vm_status *s)
{
	return s->state && !str_eq(s->state, "stopped") && !str_eq(s->state, "created");
}

/* -ENOENT: nobody holds the lock. */
static int status_look_live(const struct vm_dirs *dirs, const char *vm_name, struct vm_status *ret)
{
	CLEANUP_CLOSE int runtime = vm_dirs_open_runtime(dirs, vm_name, false);
	int r;

	if (runtime < 0)
		return runtime;
	r = lease_is_held_at(runtime, "lock");
	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = vm_status_read_at(runtime, "current/status", ret);
	if (r < 0) {
		*ret = (struct vm_status){ 0 };
		r = str_set(&ret->state, "starting");
	}
	return r;
}

static int status_look_last(const struct vm_dirs *dirs, const char *vm_name, struct vm_status *ret)
{
	CLEANUP_CLOSE int opened = dirs->vms_fd >= 0 ? -EBADF : vm_dirs_open_vms(dirs);
	CLEANUP_CLOSE int vm = -EBADF;
	struct vm_spec spec = { 0 };
	char path[VM_NAME_MAX + sizeof "/last/status.json"];
	int vms = dirs->vms_fd >= 0 ? dirs->vms_fd : opened, r;

	if (vms < 0)
		return vms;
	snprintf(path, sizeof path, "%s/last/status.json", vm_name);
	if (vm_status_read_at(vms, path, ret) >= 0)
		return str_set(&ret->state, "stopped");
	vm = vm_dirs_open_vm(dirs, vm_name, false);
	if (vm < 0)
		return vm;
	*ret = (struct vm_status){ 0 };
	r = vm_spec_read(vm, &spec, NULL);
	if (r < 0)
		return r;
	ret->image = TAKE_PTR(spec.image);
	vm_spec_finish(&spec);
	return str_set(&ret->state, "created");
}

int vm_status_last(const struct vm_dirs *dirs, const char *vm_name, struct vm_status *ret)
{
	int r = status_look_last(dirs, vm_name, ret);

	return r < 0 ? r : str_set(&ret->name, vm_name);
}

int vm_status_look(const struct vm_dirs *dirs, const char *vm_name, struct vm_status *ret)
{
	int r;

	r = status_look_live(dirs, vm_name, ret);
	if (r == -ENOENT)
		return vm_status_last(dirs, vm_name, ret);
	return r < 0 ? r : str_set(&ret->name, vm_name);
}
