#include "vm-plan.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "cleanup.h"
#include "str.h"

static const char *const step_names[] = {
	[VM_STEP_LEASES] = "leases",
	[VM_STEP_LAYERS] = "layers",
	[VM_STEP_VOLUMES] = "volumes",
	[VM_STEP_KERNEL] = "kernel",
	[VM_STEP_INITRAMFS] = "initramfs",
	[VM_STEP_SOCKETS] = "sockets",
	[VM_STEP_NAMESPACE] = "namespace",
	[VM_STEP_VSOCKD] = "vsockd",
	[VM_STEP_SERVICES] = "services",
	[VM_STEP_NETWORK] = "network",
	[VM_STEP_VMM] = "vmm",
	[VM_STEP_BOOT] = "boot",
};
static_assert(ARRAY_SIZE(step_names) == VM_STEP_MAX, "every step has a name");

const char *vm_step_name(enum vm_step_id id)
{
	return step_names[id];
}

int vm_plan_add_consume(struct vm_plan *p, enum vm_step_id id, char **args)
{
	if (!args)
		return -ENOMEM;
	assert(p->n_steps < ARRAY_SIZE(p->steps));
	p->steps[p->n_steps++] = (struct vm_step){ .id = id, .args = args };
	return 0;
}

const struct vm_step *vm_plan_find(const struct vm_plan *p, enum vm_step_id id)
{
	for (size_t i = 0; i < p->n_steps; i++) {
		if (p->steps[i].id == id)
			return &p->steps[i];
	}
	return NULL;
}

void vm_plan_drop_last(struct vm_plan *p)
{
	strv_free(p->steps[--p->n_steps].args);
	p->steps[p->n_steps] = (struct vm_step){ 0 };
}

void vm_plan_finish(struct vm_plan *p)
{
	for (size_t i = 0; i < p->n_steps; i++)
		strv_free(p->steps[i].args);
	*p = (struct vm_plan){ 0 };
}

static bool step_is_plain(const char *s)
{
	return *s && s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				 "%+,-./:=@_")] == 0;
}

static void step_print_quoted(FILE *f, const char *s)
{
	if (step_is_plain(s)) {
		fprintf(f, " %s", s);
		return;
	}
	fputs(" '", f);
	for (; *s; s++) {
		if (*s == '\'')
			fputs("'\\''", f);
		else
			fputc(*s, f);
	}
	fputc('\'', f);
}

char *vm_step_print(const struct vm_step *step)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	if (!f)
		return NULL;
	fputs(step_names[step->id], f);
	for (char **a = step->args; *a; a++)
		step_print_quoted(f, *a);
	if (fclose(f) != 0) {
		free(text);
		return NULL;
	}
	return text;
}
