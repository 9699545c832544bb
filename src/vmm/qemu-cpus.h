/* QEMU's CPUs that come and go (qapi/machine.json, HotpluggableCPU). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct json_object;

/* What the guest says by _OST (ACPI 6.5, 6.3.5): QEMU's event ACPI_DEVICE_OST. */
enum qemu_cpu_ost {
	QEMU_CPU_NOTHING, /* of another device, or it is still at it */
	QEMU_CPU_GONE,
	QEMU_CPU_KEPT, /* it refuses to give it up */
};

#define QEMU_CPU_ID          "cpu" /* and the socket's number: only of CPUs that were added */
#define QEMU_CPUS_AT_ONCE    7     /* commands that QMP's queue takes beside another */
#define QEMU_CPUS_SOCKET_MAX 4096

/*
 * What is still to be asked to come from CPUS (what query-hotpluggable-cpus returned, borrowed) to GOAL of them:
 * *RET (strv, owned by the caller; NULL: nothing), QEMU_CPUS_AT_ONCE at most. *RET_UNPLUGS of them have an end
 * that qemu_cpus_ost() knows. -EPROTO: nonsense; -EOPNOTSUPP: those that are left were there at the start;
 * -ERANGE: there is no room for so many.
 */
int qemu_cpus_commands(struct json_object *cpus, uint32_t goal, char ***ret, size_t *ret_unplugs);

/* DATA (borrowed) is the event's; anything may be in it. */
enum qemu_cpu_ost qemu_cpus_ost(struct json_object *data);
