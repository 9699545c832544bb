#include "vm-spec.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "file.h"
#include "json-codec.h"
#include "str.h"
#include "vm-name.h"
#include "vm-publish.h"
#include "vm-service.h"
#include "vm-volume.h"

static const struct json_field spec_fields[] = {
	JSON_FIELD(struct vm_spec, name, JSON_STR, .max = VM_NAME_MAX),
	JSON_FIELD(struct vm_spec, image, JSON_STR, .max = 255),
	JSON_FIELD(struct vm_spec, kernel, JSON_STR, .max = 255),
	JSON_FIELD(struct vm_spec, command, JSON_STRV),
	JSON_FIELD(struct vm_spec, env, JSON_STRV),
	JSON_FIELD(struct vm_spec, workdir, JSON_STR),
	JSON_FIELD(struct vm_spec, user, JSON_STR, .max = 255),
	JSON_FIELD(struct vm_spec, backend, JSON_STR, .max = 16),
	JSON_FIELD(struct vm_spec, accel, JSON_STR, .max = 16),
	JSON_FIELD(struct vm_spec, cpu_model, JSON_STR, .max = VM_CPU_MODEL_MAX),
	JSON_FIELD(struct vm_spec, vsock, JSON_STR, .max = 16),
	JSON_FIELD(struct vm_spec, net, JSON_STR, .max = 16),
	JSON_FIELD(struct vm_spec, publish, JSON_STRV),
	JSON_FIELD(struct vm_spec, connects, JSON_STRV),
	JSON_FIELD(struct vm_spec, accepts, JSON_STRV),
	JSON_FIELD(struct vm_spec, volumes, JSON_STRV),
	JSON_FIELD(struct vm_spec, credentials, JSON_STRV),
	JSON_FIELD(struct vm_spec, memory_bytes, JSON_U64, .max = UINT64_C(1) << 46),
	JSON_FIELD(struct vm_spec, memory_max_bytes, JSON_U64, .max = UINT64_C(1) << 46),
	JSON_FIELD(struct vm_spec, root_bytes, JSON_U64, .max = UINT64_C(1) << 46),
	JSON_FIELD(struct vm_spec, start_timeout_usec, JSON_U64),
	JSON_FIELD(struct vm_spec, stop_timeout_usec, JSON_U64),
	JSON_FIELD(struct vm_spec, cpus, JSON_U32),
	JSON_FIELD(struct vm_spec, cpus_max, JSON_U32),
	JSON_FIELD(struct vm_spec, hotplug_slots, JSON_U32),
	JSON_FIELD(struct vm_spec, keep, JSON_BOOL),
	JSON_FIELD(struct vm_spec, attached, JSON_BOOL),
	JSON_FIELD(struct vm_spec, getty, JSON_BOOL),
};

void vm_spec_init(struct vm_spec *ret)
{
	*ret = (struct vm_spec){
		.memory_bytes = VM_MEMORY_DEFAULT_BYTES,
		.start_timeout_usec = UINT64_C(180) * 1000000,
		.stop_timeout_usec = UINT64_C(90) * 1000000,
		.cpus = 1,
	};
}

void vm_spec_finish(struct vm_spec *s)
{
	json_codec_release(spec_fields, ARRAY_SIZE(spec_fields), s);
}

static bool spec_is_one_of(const char *s, const char *const *list)
{
	for (; *list; list++) {
		if (str_eq(s, *list))
			return true;
	}
	return s == NULL;
}

int vm_spec_check_credential(const char *name)
{
	return str_is_name(name, strlen(name), VM_CREDENTIAL_NAME_MAX) ? 0 : -EINVAL;
}

static char *spec_network_fault(const struct vm_spec *s)
{
	static const char *const nets[] = { "none", "user", NULL };
	struct vm_publish p;

	if (!spec_is_one_of(s->net, nets))
		return str_printf("network \"%s\": not supported; there are none and user", s->net);
	if (s->publish && !vm_spec_has_network(s))
		return strdup("a port can only be published with --net=user");
	if (strv_length(s->publish) > VM_PUBLISH_MAX)
		return str_printf(
			"%zu published ports: at most %d", strv_length(s->publish), VM_PUBLISH_MAX);
	for (char **v = s->publish; v && *v; v++) {
		if (vm_publish_parse(*v, &p) < 0)
			return str_printf("\"%s\" cannot be published: it must be "
					  "[ADDR:]HOST:GUEST[/udp]",
				*v);
	}
	return NULL;
}

/* The paths must differ, and so must the names: a volume has one writer. */
static char *spec_volume_clash(const struct vm_spec *s, size_t n)
{
	struct vm_volume a, b;
	const char *reason;

	(void)vm_volume_parse(s->volumes[n], &a, &reason);
	for (size_t i = 0; i < n; i++) {
		if (vm_volume_parse(s->volumes[i], &b, &reason) < 0)
			continue;
		if (str_eq(a.name, b.name) || str_eq(a.path, b.path))
			return str_printf(
				"the volume %s or its path %s is named twice", a.name, a.path);
	}
	return NULL;
}

static char *spec_volumes_fault(const struct vm_spec *s)
{
	const char *reason;
	struct vm_volume v;
	char *fault = NULL;

	if (strv_length(s->volumes) > VM_VOLUMES_MAX)
		return str_printf(
			"%zu volumes: at most %d", strv_length(s->volumes), VM_VOLUMES_MAX);
	for (size_t i = 0; !fault && s->volumes && s->volumes[i]; i++) {
		if (vm_volume_parse(s->volumes[i], &v, &reason) < 0)
			return str_printf("volume \"%s\": %s", s->volumes[i], reason);
		fault = spec_volume_clash(s, i);
	}
	return fault;
}

/* A port of the host leads to one place. */
static char *spec_connect_clash(const struct vm_spec *s, size_t n, uint32_t port)
{
	struct vm_connect c;
	const char *reason;

	for (size_t i = 0; i < n; i++) {
		if (vm_connect_parse(s->connects[i], &c, &reason) == 0 && c.port == port)
			return str_printf("port %u is connected twice", port);
	}
	return NULL;
}

static char *spec_services_fault(const struct vm_spec *s)
{
	const char *reason;
	struct vm_connect c;
	struct vm_accept a;
	char *fault = NULL;

	if (strv_length(s->connects) > VM_SERVICES_MAX || strv_length(s->accepts) > VM_SERVICES_MAX)
		return str_printf("at most %d services of each kind", VM_SERVICES_MAX);
	for (size_t i = 0; !fault && s->connects && s->connects[i]; i++) {
		if (vm_connect_parse(s->connects[i], &c, &reason) < 0)
			return str_printf("connect \"%s\": %s", s->connects[i], reason);
		fault = spec_connect_clash(s, i, c.port);
	}
	for (char **v = s->accepts; !fault && v && *v; v++) {
		if (vm_accept_parse(*v, &a, &reason) < 0)
			return str_printf("accept \"%s\": %s", *v, reason);
	}
	return fault;
}

static char *spec_credentials_fault(const struct vm_spec *s)
{
	if (strv_length(s->credentials) > VM_CREDENTIALS_MAX)
		return str_printf("%zu credentials: at most %d", strv_length(s->credentials),
			VM_CREDENTIALS_MAX);
	for (char **v = s->credentials; v && *v; v++) {
		if (vm_spec_check_credential(*v) < 0)
			return str_printf(
				"\"%s\" cannot be a credential's name: A-Z a-z 0-9 _ . -", *v);
	}
	return NULL;
}

static char *spec_size_fault(const struct vm_spec *s)
{
	if (s->cpus < 1 || s->cpus > VM_CPUS_MAX)
		return str_printf("%u CPUs: it must be 1 to %d", s->cpus, VM_CPUS_MAX);
	if (s->cpus_max && (s->cpus_max < s->cpus || s->cpus_max > VM_CPUS_MAX))
		return str_printf(
			"at most %u CPUs: it must be %u to %d", s->cpus_max, s->cpus, VM_CPUS_MAX);
	if (s->memory_bytes < VM_MEMORY_MIN_BYTES)
		return strdup("a guest needs at least 96M of memory");
	if (s->memory_bytes % (2 << 20))
		return strdup("memory must be a multiple of 2M");
	if (s->memory_max_bytes &&
		(s->memory_max_bytes < s->memory_bytes ||
			(s->memory_max_bytes - s->memory_bytes) % VM_MEMORY_STEP_BYTES))
		return strdup("the most memory must be the memory it begins with and a multiple "
			      "of 128M more");
	return NULL;
}

/* A model and its features, "EPYC,+svm,-avx2,vendor=X": no word that asks QEMU for a list instead. */
static char *spec_cpu_model_fault(const struct vm_spec *s)
{
	static const char chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789_.,+=-";
	size_t len = s->cpu_model ? strspn(s->cpu_model, chars) : 0;

	if (!s->cpu_model)
		return NULL;
	if (len == 0 || len > VM_CPU_MODEL_MAX || s->cpu_model[len] ||
		strchr("_.,+=-", s->cpu_model[0]) || str_eq(s->cpu_model, "help"))
		return str_printf("the CPU model cannot be used: it must be MODEL[,FEATURE]..., at "
				  "most %d of A-Z a-z 0-9 _ . , + = -",
			VM_CPU_MODEL_MAX);
	return NULL;
}

static char *spec_fault(const struct vm_spec *s)
{
	static const char *const backends[] = { "auto", "ch", "qemu", "null", NULL };
	static const char *const accels[] = { "auto", "kvm", "tcg", NULL };
	static const char *const vsocks[] = { "auto", "vmm", "uvms", NULL };
	const char *reason;

	if (!s->name || vm_name_check(s->name, &reason) < 0)
		return str_printf("the name \"%s\" cannot be used: %s", str_or(s->name, ""),
			s->name ? reason : "it is missing");
	if (!s->image || !*s->image)
		return strdup("no image is named");
	if (s->hotplug_slots > VM_HOTPLUG_SLOTS_MAX)
		return str_printf(
			"%u hot-plug slots: at most %d", s->hotplug_slots, VM_HOTPLUG_SLOTS_MAX);
	if (!spec_is_one_of(s->backend, backends))
		return str_printf(
			"backend \"%s\": not supported; there are auto, ch, qemu and null",
			s->backend);
	if (!spec_is_one_of(s->accel, accels))
		return str_printf(
			"accelerator \"%s\": not supported; there are auto, kvm and tcg", s->accel);
	if (!spec_is_one_of(s->vsock, vsocks))
		return str_printf(
			"vsock device \"%s\": not supported; there are auto, vmm and uvms",
			s->vsock);
	return NULL;
}

static char *spec_first_fault(const struct vm_spec *s)
{
	static char *(*const checks[])(const struct vm_spec *) = { spec_fault, spec_size_fault,
		spec_cpu_model_fault, spec_network_fault, spec_volumes_fault, spec_services_fault,
		spec_credentials_fault };
	char *fault = NULL;

	for (size_t i = 0; !fault && i < ARRAY_SIZE(checks); i++)
		fault = checks[i](s);
	return fault;
}

int vm_spec_check(const struct vm_spec *s, char **ret_reason)
{
	CLEANUP_FREE char *fault = spec_first_fault(s);

	if (!fault)
		return 0;
	if (ret_reason)
		*ret_reason = TAKE_PTR(fault);
	return -EINVAL;
}

struct json_object *vm_spec_to_json(const struct vm_spec *s)
{
	return json_codec_encode(spec_fields, ARRAY_SIZE(spec_fields), s);
}

int vm_spec_from_json(const char *text, size_t len, struct vm_spec *ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *obj = NULL;
	struct vm_spec s = { 0 };
	const char *bad = "(not JSON)";
	int r;

	r = json_codec_parse(text, len, &obj);
	if (r == 0)
		r = json_codec_decode(obj, spec_fields, ARRAY_SIZE(spec_fields), &s, &bad);
	if (r < 0 && r != -ENOMEM && ret_reason)
		*ret_reason = str_printf("the field \"%s\" cannot be understood", bad);
	if (r == 0)
		r = vm_spec_check(&s, ret_reason);
	if (r < 0) {
		vm_spec_finish(&s);
		return r;
	}
	*ret = s;
	return 0;
}

int vm_spec_write(int vm_dirfd, const struct vm_spec *s)
{
	CLEANUP(json_codec_putp) struct json_object *obj = vm_spec_to_json(s);
	const char *text =
		obj ? json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PRETTY) : NULL;

	if (!text)
		return -ENOMEM;
	return file_write_at(vm_dirfd, "spec.json", text, strlen(text), 0600);
}

int vm_spec_read(int vm_dirfd, struct vm_spec *ret, char **ret_reason)
{
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	r = file_read_at(vm_dirfd, "spec.json", VM_SPEC_TEXT_MAX, &text, &len);
	if (r < 0)
		return r;
	return vm_spec_from_json(text, len, ret, ret_reason);
}
