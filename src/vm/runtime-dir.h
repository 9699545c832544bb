/*
 * RUNTIME/NAME while a VM lives, and what is kept of it afterwards.
 *
 *	lock		the name lock (lease); its text is the supervisor's pid, for messages only
 *	current		→ i-XXXXXXXX, the directory of the incarnation
 *	i-XXXXXXXX/	control, vsock/v, vsock/v_PORT, status, console, *.log, trace
 *
 * Whoever holds the lock owns the rest. A killed incarnation leaves its directory without a holder:
 * runtime_dir_sweep() keeps its last words and removes it.
 */
#pragma once

#include <stddef.h>

struct vm_dirs;
struct vm_status;

#define RUNTIME_DIR_INCARNATION_MAX 12

struct runtime_dir {
	int fd;      /* owned: RUNTIME/NAME */
	int lock_fd; /* owned: held */
};

/* -EBUSY: somebody holds the name; *RET_HOLDER (may be NULL) is what the lock says of him. */
int runtime_dir_lock(const struct vm_dirs *dirs, const char *vm_name, struct runtime_dir *ret,
	char ret_holder[static 16]);

/* A fresh incarnation's directory, `current` pointing at it. Descriptor; its name goes to NAME. */
int runtime_dir_begin(const struct runtime_dir *r, char name[static RUNTIME_DIR_INCARNATION_MAX]);

/* Copies the logs of the incarnation DIR_FD and STATUS to last/ below VM_FD. */
int runtime_dir_keep(int dir_fd, int vm_fd, const struct vm_status *status);

/* Removes everything below, lets the name go and removes the directory. */
void runtime_dir_end(const struct vm_dirs *dirs, const char *vm_name, struct runtime_dir *r);

/*
 * If nobody holds the name, keeps and removes what a killed incarnation left, and forgets the VM when
 * it was not to be kept. 1: something was swept, 0: nothing to do, -EBUSY: it lives.
 */
int runtime_dir_sweep(const struct vm_dirs *dirs, const char *vm_name);

/* The text of NAME.1 and NAME below DIR_FD, one after the other, on the heap; NULL: none. */
char *runtime_dir_log(int dir_fd, const char *name, size_t *ret_len);
