/*
 * Snapshots on disk: STATE/snapshots/NAME/
 *
 *	manifest.json	written last, so one without it is none
 *	spec.json	of the VM, image and kernel named by digest
 *	secret		see sv-snapshot.h
 *	vmm/		what the VMM wrote; its user's until the manifest is made, then root's
 *	volumes/	what was on them, by name
 *	credentials/	by name
 *
 * A guest goes on only where everything is as it was: the same files, VMM, CPU, kernel and layers. Whatever
 * differs is named, and nothing is started.
 */
#pragma once

#include <stdint.h>

struct vm_spec;

#define SNAPSHOT_FILES_MAX 128

struct snapshot {
	uint32_t version;
	char *vm;     /* owned, all */
	char *uvms;   /* the version that made it */
	char *vmm;    /* what its --version says */
	char *cpu;    /* model and flags of /proc/cpuinfo */
	char *kernel; /* digests, as the store has them */
	char *modules;
	char **layers;
	char **files; /* "DIGEST SIZE NAME" of each below vmm/, volumes/, credentials/; spec.json, secret */
	uint64_t created_usec;
};

#define SNAPSHOTS_MAX 10000

/* The names of those that are made, in order (strv on the heap). */
int snapshot_list(char ***ret);

/* STATE/snapshots/NAME. Descriptor; -EINVAL: no name for one, -ENOENT. */
int snapshot_open(const char *name);

/*
 * What does not need the VM's memory, so that what is wrong is known before anything is done to the VM. *RET is to be
 * finished in any case. 0, or -errno with *RET_REASON (heap, may be NULL).
 */
int snapshot_begin(int dir_fd, const struct vm_spec *spec, struct snapshot *ret, char **ret_reason);

/* S, of snapshot_begin(), when the supervisor has done its part: reads all of the files. 0 or -errno. */
int snapshot_complete(int dir_fd, struct snapshot *s);

/* 0 and all of it; -ENOENT: there is no manifest; -EBADMSG. */
int snapshot_read(int dir_fd, struct snapshot *ret);

/* 0, or -ESTALE with what differs, -EBADMSG with what was tampered with (heap). */
int snapshot_check(
	int dir_fd, const struct snapshot *s, const struct vm_spec *spec, char **ret_reason);

void snapshot_finish(struct snapshot *s);
