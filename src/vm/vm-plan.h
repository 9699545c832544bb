/*
 * The ordered steps that make one incarnation, each with what it is to do in words and arguments. The
 * plan is built once from spec and store, printed by --dry-run, and executed as it stands; each step's
 * undo runs in reverse order (supervisor/sv-steps).
 */
#pragma once

#include <stddef.h>

enum vm_step_id {
	VM_STEP_LEASES,
	VM_STEP_LAYERS,
	VM_STEP_VOLUMES,
	VM_STEP_KERNEL,
	VM_STEP_INITRAMFS,
	VM_STEP_SOCKETS,
	VM_STEP_NAMESPACE,
	VM_STEP_VSOCKD,
	VM_STEP_SERVICES,
	VM_STEP_NETWORK,
	VM_STEP_VMM,
	VM_STEP_BOOT, /* of a VMM that is told by calls what to run */
	VM_STEP_MAX,
};

struct vm_step {
	enum vm_step_id id;
	char **args; /* owned; a program's argv, or facts such as "root=sha256:…" */
};

struct vm_plan {
	struct vm_step steps[VM_STEP_MAX];
	size_t n_steps;
};

const char *vm_step_name(enum vm_step_id id);

/* Appends a step and takes ARGS over, whatever is returned. */
int vm_plan_add_consume(struct vm_plan *p, enum vm_step_id id, char **args);
const struct vm_step *vm_plan_find(const struct vm_plan *p, enum vm_step_id id);

/* Takes the last step out again. */
void vm_plan_drop_last(struct vm_plan *p);
void vm_plan_finish(struct vm_plan *p);

/* One line a step: its name, then the arguments, quoted where a shell would need it. Heap. */
char *vm_step_print(const struct vm_step *step);
