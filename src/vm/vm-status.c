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

void vm_status_finish(struct vm_status *s)
{
	json_codec_release(status_fields, ARRAY_SIZE(status_fields), s);
}

struct json_object *vm_status_to_json(const struct vm_status *s)
{
	return json_codec_encode(status_fields, ARRAY_SIZE(status_fields), s);
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
	int r;

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
