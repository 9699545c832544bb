#include "qemu-cpus.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"

#define CPU_TYPE_MAX 64 /* "EPYC-Milan-v2-x86_64-cpu" */
#define ADDED_PATH   "/machine/peripheral/" QEMU_CPU_ID

/* ACPI 6.5, table 6-70 and 6-72 */
#define OST_EJECT_REQUEST     3
#define OST_EJECT_OSPM        0x103
#define OST_DONE              0
#define OST_EJECT_IN_PROGRESS 0x84

struct cpu {
	const char *type, *path; /* borrowed; PATH NULL: it is not there */
	uint32_t socket;
};

static int cpu_read(struct json_object *cpus, size_t i, struct cpu *ret)
{
	struct json_object *c = json_object_array_get_idx(cpus, i), *props, *socket, *type, *path;
	int64_t n;

	if (!json_object_object_get_ex(c, "props", &props) ||
		!json_object_object_get_ex(props, "socket-id", &socket) ||
		!json_object_object_get_ex(c, "type", &type) ||
		!json_object_is_type(type, json_type_string))
		return -EPROTO;
	n = json_object_get_int64(socket);
	if (n < 0 || n > QEMU_CPUS_SOCKET_MAX)
		return -EPROTO;
	*ret = (struct cpu){ .type = json_object_get_string(type), .socket = (uint32_t)n };
	if (!str_is_name(ret->type, strlen(ret->type), CPU_TYPE_MAX))
		return -EPROTO;
	if (json_object_object_get_ex(c, "qom-path", &path))
		ret->path = json_object_get_string(path);
	return 0;
}

static char *add_command(const struct cpu *c)
{
	return str_printf("{\"execute\":\"device_add\",\"arguments\":{\"driver\":\"%s\","
			  "\"id\":\"" QEMU_CPU_ID "%u\",\"socket-id\":%u,\"core-id\":0,"
			  "\"thread-id\":0}}",
		c->type, c->socket, c->socket);
}

static char *remove_command(const struct cpu *c)
{
	return str_printf("{\"execute\":\"device_del\",\"arguments\":{\"id\":\"" QEMU_CPU_ID
			  "%u\"}}",
		c->socket);
}

/* Whether C is one of those that MORE (or fewer) of them are made by. */
static bool cpu_is_candidate(const struct cpu *c, bool more)
{
	return more ? !c->path : c->path && str_has_prefix(c->path, ADDED_PATH);
}

/* How many are there; -EPROTO. */
static int count(struct json_object *cpus)
{
	struct cpu c;
	int n = 0;

	if (!json_object_is_type(cpus, json_type_array))
		return -EPROTO;
	for (size_t i = 0; i < json_object_array_length(cpus); i++) {
		if (cpu_read(cpus, i, &c) < 0)
			return -EPROTO;
		n += c.path != NULL;
	}
	return n;
}

static int push(char ***commands, const struct cpu *c, bool more)
{
	CLEANUP_FREE char *command = more ? add_command(c) : remove_command(c);

	return command ? strv_push(commands, command) : -ENOMEM;
}

int qemu_cpus_commands(struct json_object *cpus, uint32_t goal, char ***ret, size_t *ret_unplugs)
{
	CLEANUP(strv_freep) char **commands = NULL;
	int present = count(cpus), r = 0;
	size_t missing, n = 0;
	bool more;

	if (present < 0)
		return present;
	more = goal > (uint32_t)present;
	missing = more ? goal - (uint32_t)present : (uint32_t)present - goal;
	/* QEMU lists them from the last to the first; it adds from the first */
	for (size_t i = json_object_array_length(cpus); r == 0 && missing > n && i-- > 0;) {
		struct cpu c;

		(void)cpu_read(cpus, more ? i : json_object_array_length(cpus) - 1 - i, &c);
		if (n < QEMU_CPUS_AT_ONCE && cpu_is_candidate(&c, more)) {
			r = push(&commands, &c, more);
			n++;
		}
	}
	if (r == 0 && missing > 0 && n == 0)
		r = more ? -ERANGE : -EOPNOTSUPP;
	if (r < 0)
		return r;
	*ret_unplugs = more ? 0 : n;
	*ret = TAKE_PTR(commands);
	return 0;
}

/* The number there; -1: none. */
static int64_t number_at(struct json_object *o, const char *key)
{
	struct json_object *n;

	if (!json_object_object_get_ex(o, key, &n) || !json_object_is_type(n, json_type_int))
		return -1;
	return json_object_get_int64(n);
}

enum qemu_cpu_ost qemu_cpus_ost(struct json_object *data)
{
	struct json_object *info, *type;
	int64_t source, status;

	if (!json_object_object_get_ex(data, "info", &info) ||
		!json_object_object_get_ex(info, "slot-type", &type) ||
		!str_eq(json_object_get_string(type), "CPU"))
		return QEMU_CPU_NOTHING;
	source = number_at(info, "source");
	status = number_at(info, "status");
	if (source != OST_EJECT_REQUEST && source != OST_EJECT_OSPM)
		return QEMU_CPU_NOTHING;
	if (status == OST_DONE)
		return QEMU_CPU_GONE;
	return status == OST_EJECT_IN_PROGRESS ? QEMU_CPU_NOTHING : QEMU_CPU_KEPT;
}
