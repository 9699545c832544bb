#include "ch-config.h"

#include <errno.h>
#include <json-c/json.h>
#include <linux/virtio_ids.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "ch-version.h"
#include "cleanup.h"
#include "json-codec.h"
#include "str.h"
#include "vmm.h"

#define CH_VSOCK_QUEUES     3   /* to the guest, from it, events */
#define CH_VSOCK_QUEUE_SIZE 128 /* entries, as Cloud Hypervisor's own device has them */

/*
 * Every setter notes a failure in FAILED instead of returning it: one test at the end is enough, and a
 * document that lacks something is never sent.
 */
struct ch_doc {
	bool failed;
};

static void doc_add(
	struct ch_doc *d, struct json_object *to, const char *key, struct json_object *value)
{
	if (to && value && json_object_object_add(to, key, value) == 0)
		return;
	json_object_put(value);
	d->failed = true;
}

static struct json_object *doc_object(struct ch_doc *d, struct json_object *to, const char *key)
{
	struct json_object *o = json_object_new_object();

	doc_add(d, to, key, o);
	return d->failed ? NULL : o;
}

static void doc_text(struct ch_doc *d, struct json_object *to, const char *key, const char *text)
{
	doc_add(d, to, key, json_object_new_string(text));
}

static void doc_number(struct ch_doc *d, struct json_object *to, const char *key, uint64_t n)
{
	doc_add(d, to, key, json_object_new_uint64(n));
}

static void doc_bool(struct ch_doc *d, struct json_object *to, const char *key, bool b)
{
	doc_add(d, to, key, json_object_new_boolean(b));
}

static void doc_push(struct ch_doc *d, struct json_object *array, struct json_object *value)
{
	if (array && value && json_object_array_add(array, value) == 0)
		return;
	json_object_put(value);
	d->failed = true;
}

static void doc_file(struct ch_doc *d, struct json_object *to, const char *key, int fd)
{
	CLEANUP_FREE char *path = str_printf("/proc/self/fd/%d", fd);

	doc_text(d, to, key, str_or(path, ""));
	d->failed |= !path;
}

static void doc_cpus(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	struct json_object *o = doc_object(d, vm, "cpus");

	doc_number(d, o, "boot_vcpus", c->cpus);
	doc_number(d, o, "max_vcpus", c->cpus_max ? c->cpus_max : c->cpus);
}

static void doc_memory(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	struct json_object *o = doc_object(d, vm, "memory");

	doc_number(d, o, "size", c->memory_bytes);
	doc_bool(d, o, "shared", c->vsock_device);
	if (c->memory_max_bytes > c->memory_bytes) {
		doc_text(d, o, "hotplug_method", "VirtioMem");
		doc_number(d, o, "hotplug_size", c->memory_max_bytes - c->memory_bytes);
	}
}

static void doc_payload(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	struct json_object *o = doc_object(d, vm, "payload");

	doc_file(d, o, "kernel", VMM_FD_KERNEL);
	doc_file(d, o, "initramfs", VMM_FD_INITRD);
	doc_text(d, o, "cmdline", c->kernel_cmdline);
}

static void doc_disk(
	struct ch_doc *d, struct json_object *disks, const struct vmm_config *c, size_t i)
{
	struct json_object *o = json_object_new_object();
	CLEANUP_FREE char *id = str_printf("disk%zu", i);

	doc_text(d, o, "id", str_or(id, ""));
	doc_file(d, o, "path", (int)(VMM_FD_DISK + i));
	doc_bool(d, o, "readonly", c->disks[i].read_only);
	doc_text(d, o, "serial", c->disks[i].serial);
	doc_text(d, o, "image_type", "Raw");
	doc_push(d, disks, o);
	d->failed |= !id;
}

static void doc_disks(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	struct json_object *disks = json_object_new_array();

	for (size_t i = 0; i < c->n_disks; i++)
		doc_disk(d, disks, c, i);
	doc_add(d, vm, "disks", disks);
}

/* What the guest sees by SMBIOS. */
static void doc_platform(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	bool named = ch_version_has(c->version, CH_FEATURE_SYSTEM_UUID);
	struct json_object *o = doc_object(d, vm, "platform"), *strings = json_object_new_array();

	doc_text(d, o, named ? "system_uuid" : "uuid", c->uuid);
	doc_text(d, o, named ? "system_serial_number" : "serial_number", c->name);
	for (const char *const *s = c->oem_strings; s && *s; s++)
		doc_push(d, strings, json_object_new_string(*s));
	doc_add(d, o, "oem_strings", strings);
}

/* Its own: the socket's directory is a landlock rule, so that it must not be "". */
static void doc_hybrid_vsock(struct ch_doc *d, struct json_object *vm)
{
	struct json_object *o = doc_object(d, vm, "vsock");

	doc_text(d, o, "id", "vsock0");
	doc_text(d, o, "cid", VMM_CALL_CID);
	doc_text(d, o, "socket", "./" VMM_VSOCK_SOCKET);
}

/* Ours. As many queues as the device has: with fewer it would start, and the device be dead. */
static void doc_vsock_device(struct ch_doc *d, struct json_object *vm)
{
	struct json_object *all = json_object_new_array(), *o = json_object_new_object();
	struct json_object *sizes = json_object_new_array();

	doc_text(d, o, "id", "vsock0");
	doc_file(d, o, "socket", VMM_FD_VSOCK);
	doc_number(d, o, "device_type", VIRTIO_ID_VSOCK);
	for (size_t i = 0; i < CH_VSOCK_QUEUES; i++)
		doc_push(d, sizes, json_object_new_int(CH_VSOCK_QUEUE_SIZE));
	doc_add(d, o, "queue_sizes", sizes);
	doc_push(d, all, o);
	doc_add(d, vm, "generic_vhost_user", all);
}

/* For the files that it is told of it makes the rules itself. */
static void doc_landlock(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	struct json_object *rules = json_object_new_array();

	for (const char *const *dir = c->landlock_dirs; dir && *dir; dir++) {
		struct json_object *rule = json_object_new_object();

		doc_text(d, rule, "path", *dir);
		doc_text(d, rule, "access", "rw");
		doc_push(d, rules, rule);
	}
	doc_bool(d, vm, "landlock_enable", true);
	doc_add(d, vm, "landlock_rules", rules);
}

static void doc_devices(struct ch_doc *d, struct json_object *vm, const struct vmm_config *c)
{
	struct json_object *balloon = doc_object(d, vm, "balloon");

	doc_number(d, balloon, "size", 0);
	doc_bool(d, balloon, "deflate_on_oom", true);
	doc_bool(d, balloon, "free_page_reporting", true);
	doc_text(d, doc_object(d, vm, "rng"), "src", "/dev/urandom");
	doc_text(d, doc_object(d, vm, "serial"), "mode", "Tty");
	doc_text(d, doc_object(d, vm, "console"), "mode", "Off");
	doc_bool(d, vm, "pvpanic", true);
	doc_bool(d, vm, "watchdog", true);
	if (c->landlock)
		doc_landlock(d, vm, c);
}

static char *doc_print(struct ch_doc *d, struct json_object *o)
{
	const char *text =
		d->failed ? NULL
			  : json_object_to_json_string_ext(
				    o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

	return text ? strdup(text) : NULL;
}

char *ch_config_vm(const struct vmm_config *c)
{
	CLEANUP(json_codec_putp) struct json_object *vm = json_object_new_object();
	struct ch_doc d = { .failed = !vm };

	doc_cpus(&d, vm, c);
	doc_memory(&d, vm, c);
	doc_payload(&d, vm, c);
	doc_disks(&d, vm, c);
	if (c->vsock_device)
		doc_vsock_device(&d, vm);
	else
		doc_hybrid_vsock(&d, vm);
	doc_platform(&d, vm, c);
	doc_devices(&d, vm, c);
	return doc_print(&d, vm);
}

/* No offloads: the other end of the TAP would have to undo them. */
char *ch_config_net(const char *mac)
{
	CLEANUP(json_codec_putp) struct json_object *o = json_object_new_object();
	struct ch_doc d = { .failed = !o };

	doc_text(&d, o, "id", VMM_NET_ID);
	doc_text(&d, o, "mac", mac);
	doc_bool(&d, o, "offload_tso", false);
	doc_bool(&d, o, "offload_ufo", false);
	doc_bool(&d, o, "offload_csum", false);
	return doc_print(&d, o);
}

char *ch_config_disk(const struct vmm_op *op)
{
	CLEANUP(json_codec_putp) struct json_object *o = json_object_new_object();
	struct ch_doc d = { .failed = !o };

	doc_text(&d, o, "id", op->id);
	doc_text(&d, o, "path", op->path);
	doc_text(&d, o, "serial", op->serial);
	doc_text(&d, o, "image_type", "Raw");
	return doc_print(&d, o);
}

/* What the guest would write to it stays its own: the file is mapped private, and needs only be readable. */
char *ch_config_pmem(const struct vmm_op *op)
{
	CLEANUP(json_codec_putp) struct json_object *o = json_object_new_object();
	struct ch_doc d = { .failed = !o };

	doc_text(&d, o, "id", op->id);
	doc_text(&d, o, "file", op->path);
	doc_number(&d, o, "size", op->bytes);
	doc_bool(&d, o, "discard_writes", true);
	return doc_print(&d, o);
}

char *ch_config_fs(const struct vmm_op *op)
{
	CLEANUP(json_codec_putp) struct json_object *o = json_object_new_object();
	struct ch_doc d = { .failed = !o };

	doc_text(&d, o, "id", op->id);
	doc_text(&d, o, "tag", op->tag);
	doc_text(&d, o, "socket", op->path);
	doc_number(&d, o, "num_queues", 1);
	doc_number(&d, o, "queue_size", VMM_FS_QUEUE);
	return doc_print(&d, o);
}

static void doc_url(struct ch_doc *d, struct json_object *to, const char *key, const char *path)
{
	CLEANUP_FREE char *url = str_printf("file://%s", path);

	doc_text(d, to, key, str_or(url, ""));
	d->failed |= !url;
}

char *ch_config_url(const char *key, const char *path)
{
	CLEANUP(json_codec_putp) struct json_object *o = json_object_new_object();
	struct ch_doc d = { .failed = !o };

	doc_url(&d, o, key, path);
	return doc_print(&d, o);
}

char *ch_config_restore(const char *path, const char *net_id, bool on_demand)
{
	CLEANUP(json_codec_putp) struct json_object *o = json_object_new_object();
	struct json_object *nets = net_id ? json_object_new_array() : NULL;
	struct json_object *net = net_id ? json_object_new_object() : NULL;
	struct ch_doc d = { .failed = !o };

	doc_url(&d, o, "source_url", path);
	if (on_demand)
		doc_text(&d, o, "memory_restore_mode", "OnDemand");
	if (net_id) {
		doc_text(&d, net, "id", net_id);
		doc_number(&d, net, "num_fds", 1);
		doc_push(&d, nets, net);
		doc_add(&d, o, "net_fds", nets);
	}
	return doc_print(&d, o);
}
