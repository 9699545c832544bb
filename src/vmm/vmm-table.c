#include "vmm-table.h"

#include <assert.h>
#include <stdio.h>

#include "ch-version.h"
#include "cleanup.h"
#include "vmm-impl.h"

static const struct vmm_backend *const columns[] = { &vmm_backend_ch, &vmm_backend_qemu };

/* Without the capability it is OTHERWISE. */
static const struct {
	const char *what, *with, *otherwise;
	unsigned cap;
} rows[] = {
	{ "KVM", "yes", "no", VMM_CAP_KVM },
	{ "emulation", "yes", "no", VMM_CAP_TCG },
	{ "CPU model (`--cpu-model`)", "yes", "not supported yet", VMM_CAP_CPU_MODEL },
	{ "told what to run by", "calls of its API", "its command line", VMM_CAP_API },
	{ "power button", "yes", "no", VMM_CAP_POWER_BUTTON },
	{ "vsock by uvms's own device (`--vsock=uvms`)", "yes", "no", VMM_CAP_VSOCK_DEVICE },
	{ "vsock of its own, a hybrid socket (`--vsock=vmm`)", "yes", "no", VMM_CAP_VSOCK_HYBRID },
	{ "serial port", "a terminal", "a socket", VMM_CAP_CONSOLE_TTY },
	{ "`--net=user` by", "a TAP, uvms-tapd and passt", "passt's socket", VMM_CAP_NET_TAP },
	{ "a reset that ends the VM", "ends by itself", "is killed", VMM_CAP_REBOOT_ENDS },
	{ "confines itself to its files (Landlock)", "from Linux 6.2", "no", VMM_CAP_LANDLOCK },
	{ "pause and resume", "yes", "no", VMM_CAP_PAUSE },
	{ "memory changed while it runs (virtio-mem)", "yes", "no", VMM_CAP_MEMORY },
	{ "CPUs added while it runs, and removed (QEMU: with KVM)", "yes", "no", VMM_CAP_CPUS },
	{ "a network added and removed while it runs", "yes", "no", VMM_CAP_NET_LIVE },
	{ "volumes added and removed while it runs", "yes", "no", VMM_CAP_DISKS },
	{ "an image's files added while it runs (pmem)", "yes", "not supported yet",
		VMM_CAP_PMEM_LIVE },
	{ "and removed again", "yes", "no, they stay until it ends", VMM_CAP_PMEM_REMOVED },
	{ "a directory of the host shared while it runs (virtio-fs)", "yes", "not supported yet",
		VMM_CAP_FS_LIVE },
	{ "snapshot and restore", "yes", "not supported yet", VMM_CAP_SNAPSHOT },
};

void vmm_table_print(void)
{
	printf("| capability |");
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
		printf(" %s |", columns[i]->name);
	printf("\n|---|");
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
		printf("---|");
	for (size_t r = 0; r < ARRAY_SIZE(rows); r++) {
		printf("\n| %s |", rows[r].what);
		for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
			printf(" %s |",
				columns[i]->caps & rows[r].cap ? rows[r].with : rows[r].otherwise);
	}
	for (enum ch_feature f = 0; f < CH_FEATURES; f++)
		printf("\n| %s | from v%u | |", ch_version_feature_name(f), ch_version_of(f));
	printf("\n");
}
