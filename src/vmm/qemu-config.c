#include "qemu-config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"
#include "vmm.h"

/*
 * There are addresses for memory that may come. QEMU then describes them by an SRAT, of one node; a Linux guest concludes
 * that memory above 4 GiB may come, and sets 64 MiB aside to copy the I/O of devices that reach no further. None of these
 * is such a device: numa=off makes it read no SRAT.
 */
static bool qemu_has_room(const struct vmm_config *c)
{
	return c->memory_max_bytes > c->memory_bytes || c->hotplug_slots > 0;
}

/*
 * Sockets of one CPU each, so that a CPU is named by its socket alone. The memory that may come later is one
 * virtio-mem device, mapped from the start: what shares the guest's memory never has to learn of a new region. Above it
 * there is room for the files that may be added as persistent memory, which is nothing but addresses.
 */
static int qemu_size(const struct vmm_config *c, char ***v)
{
	unsigned long long now = c->memory_bytes >> 20, more = 0,
			   room = c->hotplug_slots * (QEMU_PMEM_ROOM >> 20);
	int r = 0;

	if (c->memory_max_bytes > c->memory_bytes)
		more = (c->memory_max_bytes >> 20) - now;

	r |= strv_push(v, "-smp");
	if (c->cpus_max > c->cpus)
		r |= strv_pushf(v, "%u,maxcpus=%u,sockets=%u,cores=1,threads=1", c->cpus,
			c->cpus_max, c->cpus_max);
	else
		r |= strv_pushf(v, "%u", c->cpus);
	r |= strv_push(v, "-m");
	r |= more + room > 0 ? strv_pushf(v, "%lluM,maxmem=%lluM", now, now + more + room)
			     : strv_pushf(v, "%lluM", now);
	r |= strv_push(v, "-object");
	r |= strv_pushf(v, "memory-backend-memfd,id=mem,size=%lluM,share=on,seal=on", now);
	if (more > 0) {
		r |= strv_push(v, "-object");
		r |= strv_pushf(v,
			"memory-backend-memfd,id=more,size=%lluM,share=on,seal=on,reserve=off",
			more);
		r |= strv_push(v, "-device");
		r |= strv_push(v, "virtio-mem-pci,id=memory,memdev=more,requested-size=0");
	}
	return r;
}

/* HPET costs 7-8 % of a core in an idle guest; S3 and S4 have no use here. */
static int qemu_machine(const struct vmm_config *c, char ***v)
{
	bool kvm = str_eq(c->accel, "kvm");
	int r = 0;

	r |= strv_push(v, "-nodefaults");
	r |= strv_push(v, "-no-user-config");
	r |= strv_push(v, "-display");
	r |= strv_push(v, "none");
	r |= strv_push(v, "-name");
	r |= strv_pushf(v, "guest=%s,process=uvms-%.10s", c->name, c->name);
	r |= strv_push(v, "-uuid");
	r |= strv_push(v, c->uuid);
	r |= strv_push(v, "-machine");
	r |= strv_push(v, "q35,hpet=off,smbus=off,usb=off,vmport=off,memory-backend=mem");
	r |= strv_push(v, "-accel");
	r |= strv_push(v, kvm ? "kvm" : "tcg,thread=multi");
	r |= strv_push(v, "-cpu");
	r |= strv_push(v, str_or(c->cpu_model, kvm ? "host" : "max,la57=off"));
	r |= qemu_size(c, v);
	r |= strv_push(v, "-sandbox");
	r |= strv_push(
		v, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
	r |= strv_push(v, "-rtc");
	r |= strv_push(v, "base=utc");
	if (c->reboot_ends)
		r |= strv_push(v, "-no-reboot");
	if (c->restore) {
		r |= strv_push(v, "-S");
		r |= strv_push(v, "-incoming");
		r |= strv_push(v, "defer");
	}
	return r;
}

static int qemu_channels(const struct vmm_config *c, char ***v)
{
	int r = 0;

	r |= strv_push(v, "-chardev");
	r |= strv_pushf(v, "socket,id=qmp,fd=%d", VMM_FD_CONTROL);
	r |= strv_push(v, "-mon");
	r |= strv_push(v, "chardev=qmp,mode=control");
	r |= strv_push(v, "-chardev");
	r |= strv_pushf(v, "socket,id=console,fd=%d", VMM_FD_CONSOLE);
	r |= strv_push(v, "-serial");
	r |= strv_push(v, "chardev:console");
	return r;
}

/* The vsock device has a root port of its own, so that it can be unplugged (it cannot be migrated). */
static int qemu_devices(const struct vmm_config *c, char ***v)
{
	int r = 0;

	r |= strv_push(v, "-device");
	r |= strv_push(v, "pcie-root-port,id=" QEMU_VSOCK_PORT ",chassis=1,addr=0x4");
	r |= strv_push(v, "-chardev");
	r |= strv_pushf(v, "socket,id=" QEMU_VSOCK_CHARDEV ",fd=%d", VMM_FD_VSOCK);
	/* what was saved had none: it is added when that is read */
	if (!c->restore) {
		r |= strv_push(v, "-device");
		r |= strv_push(v, QEMU_VSOCK_DRIVER ",id=" QEMU_VSOCK ",chardev=" QEMU_VSOCK_CHARDEV
						    ",bus=" QEMU_VSOCK_PORT);
	}
	for (uint32_t i = 0; i < c->hotplug_slots; i++) {
		r |= strv_push(v, "-device");
		r |= strv_pushf(v, "pcie-root-port,id=port%u,chassis=%u,addr=0x%x.%u%s", i, i + 2,
			5 + i / 8, i % 8, i % 8 == 0 ? ",multifunction=on" : "");
	}
	r |= strv_push(v, "-object");
	r |= strv_push(v, "rng-builtin,id=rng");
	r |= strv_push(v, "-device");
	r |= strv_push(v, "virtio-rng-pci,id=rng0,rng=rng");
	r |= strv_push(v, "-device");
	r |= strv_push(v, "virtio-balloon-pci,id=balloon0,free-page-reporting=on");
	r |= strv_push(v, "-device");
	r |= strv_push(v, "pvpanic");
	return r;
}

/* passt gives one queue, and no offloads that it would have to undo. */
static int qemu_network(const struct vmm_config *c, char ***v)
{
	int r = 0;

	if (!c->net_mac)
		return 0;
	r |= strv_push(v, "-netdev");
	r |= strv_pushf(v, "stream,id=net,server=off,addr.type=fd,addr.str=%d", VMM_FD_NET);
	r |= strv_push(v, "-device");
	r |= strv_pushf(v, "virtio-net-pci,id=net0,netdev=net,mac=%s,romfile=", c->net_mac);
	return r;
}

/*
 * A writable disk is used through its descriptor itself: opening /proc/self/fd/N again would ask for
 * the file's permissions, and would leave the lock on it behind.
 */
static int qemu_disk(const struct vmm_disk *d, size_t i, char ***v)
{
	int r = 0;

	if (d->read_only) {
		r |= strv_push(v, "-blockdev");
		r |= strv_pushf(v,
			"driver=raw,node-name=disk%zu,read-only=on,file.driver=file,"
			"file.filename=/proc/self/fd/%zu,file.locking=off",
			i, VMM_FD_DISK + i);
		return r;
	}
	r |= strv_push(v, "-add-fd");
	r |= strv_pushf(v, "fd=%zu,set=%zu", VMM_FD_DISK + i, VMM_FD_DISK + i);
	r |= strv_push(v, "-blockdev");
	r |= strv_pushf(v,
		"driver=raw,node-name=disk%zu,discard=unmap,detect-zeroes=unmap,file.driver=file,"
		"file.filename=/dev/fdset/%zu,file.locking=off,file.discard=unmap",
		i, VMM_FD_DISK + i);
	return r;
}

static int qemu_disks(const struct vmm_config *c, char ***v)
{
	int r = 0;

	for (size_t i = 0; i < c->n_disks; i++) {
		r |= qemu_disk(&c->disks[i], i, v);
		r |= strv_push(v, "-device");
		r |= strv_pushf(v, "virtio-blk-pci,id=blk%zu,drive=disk%zu,serial=%s", i, i,
			c->disks[i].serial);
	}
	return r;
}

/* In an option's value a comma is written twice. */
static int qemu_push_oem(char ***v, const char *s)
{
	CLEANUP_FREE char *escaped = malloc(2 * strlen(s) + 1);
	char *p = escaped;

	if (!escaped)
		return -ENOMEM;
	for (; *s; s++) {
		if (*s == ',')
			*p++ = ',';
		*p++ = *s;
	}
	*p = 0;
	return strv_pushf(v, "type=11,value=%s", escaped);
}

static int qemu_payload(const struct vmm_config *c, char ***v)
{
	int r = 0;

	for (const char *const *s = c->oem_strings; s && *s; s++) {
		r |= strv_push(v, "-smbios");
		r |= qemu_push_oem(v, *s);
	}
	r |= strv_push(v, "-kernel");
	r |= strv_pushf(v, "/proc/self/fd/%d", VMM_FD_KERNEL);
	r |= strv_push(v, "-initrd");
	r |= strv_pushf(v, "/proc/self/fd/%d", VMM_FD_INITRD);
	r |= strv_push(v, "-append");
	r |= strv_pushf(v, "%s%s", c->kernel_cmdline, qemu_has_room(c) ? " numa=off" : "");
	return r;
}

int qemu_config_arguments(const struct vmm_config *c, char ***argv)
{
	static int (*const parts[])(const struct vmm_config *, char ***) = {
		qemu_machine,
		qemu_channels,
		qemu_devices,
		qemu_network,
		qemu_disks,
		qemu_payload,
	};

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (parts[i](c, argv) < 0)
			return -ENOMEM;
	}
	return 0;
}
