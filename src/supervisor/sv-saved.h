/*
 * What a supervisor is, as text: handed to the next image of the same process (uvms refresh).
 *
 * Theory of operation. `struct sv_saved` holds plain values and the numbers of open descriptors; it is
 * written as JSON into a sealed memfd, which the next image reads after execve(). The text names each
 * descriptor once, and lists all of them with what kind of file each is: a reader refuses a text whose list and
 * fields do not agree, and (when the descriptors are its own) one whose list is not what is open. So a
 * mistake is found before anything is acted on, and by the asked-first reader (--check-resume-fd) before execve().
 *
 * SV_SAVED_VERSION changes when a field changes its meaning. A new field is absent in older texts: it
 * needs a value for that. Unknown fields are refused, so an older supervisor takes no newer text.
 *
 * The secret of the incarnation is in the text; the memfd is private and closed when it has been read.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control-server.h"
#include "keeper-wire.h"
#include "sv-agent.h"
#include "sv-console.h"
#include "vm-plan.h"
#include "vm-spec.h"
#include "vm-status.h"

#define SV_SAVED_VERSION     1
#define SV_SAVED_TEXT_MAX    (32 * 1024 * 1024)
#define SV_SAVED_FDS_MAX     256
#define SV_SAVED_CONNECTIONS (CONTROL_CONNECTIONS_MAX + 1)

enum {
	SV_SAVED_VMM,
	SV_SAVED_VSOCKD,
	SV_SAVED_NAMESPACE,
	SV_SAVED_NET,
	SV_SAVED_TAP,
	SV_SAVED_BROKER,
	SV_SAVED_SHARE, /* and those behind it: one for each place in the table */
	SV_SAVED_CHILDREN = SV_SAVED_SHARE + VM_STATUS_MOUNTS_MAX,
};

struct sv_saved_self {
	uint32_t version;
	char *uvms;   /* owned, all strings: the version that wrote it */
	char *state;  /* sv_fsm_state_name() */
	char *secret; /* hex, as are all bytes */
	char *state_dir, *runtime_dir, *config_dir;
	int vm_fd, runtime_fd, lock_fd, dir_fd, vsock_fd, net_fd, life_fd, broker_fd;
	uint64_t deadline_usec; /* CLOCK_MONOTONIC; 0: none */
	uint64_t stop_timeout_usec;
	uint32_t steps_done, net_restarts;
	uint32_t link_slot; /* and 1; 0: no network was added */
	bool link_gone;
	uint32_t caller; /* the connection whose Refresh is to be answered */
	bool owned, starter_waits;
};

struct sv_saved_child {
	uint32_t pid; /* 0: never started */
	int pidfd, output_fd;
	uint32_t end_code, end_status;
	uint64_t dropped_bytes, gap_bytes;
	bool has_ended;
};

struct sv_saved_vsockd {
	int device_fd, dialed_fd, listen_fd, table_fd, state_fd, keeper_fd;
	uint32_t cookie;
	bool served;
	uint64_t started_usec;
};

struct sv_saved_slot {
	uint32_t slot;
	int fd;
};

struct sv_saved_vmm {
	int fd, events_fd;
	uint32_t version;
	char *pending;
};

struct sv_saved_console {
	int fd;
	uint64_t dropped_bytes, gap_bytes;
};

struct sv_saved_client {
	int fd;
};

struct sv_saved_agent {
	int fd;
	bool ready;
	uint32_t n_lines;
};

struct sv_saved_home {
	int fd;
	bool proven, control;
	uint32_t version;
	char *pending;
	uint64_t timeout_usec;
};

struct sv_saved_control {
	int fd;
};

struct sv_saved_connection {
	int fd, out_fd;
	bool may_write, owner, busy, oneway;
	char *in, *out;
};

struct sv_saved_tap {
	int link_fd, stream_fd;
	uint32_t restarts;
};

struct sv_saved_disk {
	char *name;
	int fd;
	uint32_t slot;
	bool gone;
};

struct sv_saved_share {
	uint32_t place, kind; /* enum sv_share_kind */
	char *path, *source, *digest, *program, *fault;
	char *which; /* vm_virtiofsd_name() */
	int fd, listen_fd;
	uint64_t bytes;
	uint32_t slot, restarts;
	bool gone, lost;
};

struct sv_saved_waiter {
	uint32_t connection; /* index */
	char *what;
};

struct sv_saved_step {
	char *step; /* vm_step_name() */
	char **args;
};

struct sv_saved {
	struct sv_saved_self self;
	struct sv_saved_child children[SV_SAVED_CHILDREN];
	struct sv_saved_vsockd vsockd;
	struct sv_saved_vmm vmm;
	struct sv_saved_console console;
	struct sv_saved_agent agent;
	struct sv_saved_control control;
	struct sv_saved_tap tap;
	struct sv_saved_step steps[VM_STEP_MAX];
	struct sv_saved_slot slots[KEEPER_SLOTS];
	struct sv_saved_client clients[SV_CONSOLE_CLIENTS];
	struct sv_saved_home homes[SV_AGENT_HOMES_MAX];
	struct sv_saved_connection connections[SV_SAVED_CONNECTIONS];
	struct sv_saved_waiter waiters[SV_SAVED_CONNECTIONS];
	struct sv_saved_disk disks[VM_HOTPLUG_SLOTS_MAX];
	struct sv_saved_share shares[VM_STATUS_MOUNTS_MAX];
	size_t n_children, n_steps, n_slots, n_clients, n_homes, n_connections, n_waiters, n_disks;
	size_t n_shares;
	struct vm_spec spec;
	struct vm_status status;
};

/* Everything absent: descriptors -EBADF. On the heap; NULL: out of memory. */
struct sv_saved *sv_saved_new(void);
void sv_saved_free(struct sv_saved *s);

/* A sealed memfd with the text of S, or -errno. */
int sv_saved_write(const struct sv_saved *s);

/*
 * Reads MEMFD (borrowed). HERE: its descriptors are this process's. 0, or -errno with *RET_REASON (heap, for the
 * log): -EBADMSG, -EPROTONOSUPPORT (another version), -EBADF (a descriptor is not what it was).
 */
int sv_saved_read(int memfd, bool here, struct sv_saved **ret, char **ret_reason);

/* The same from text, for tests. */
int sv_saved_decode(
	const char *text, size_t len, bool here, struct sv_saved **ret, char **ret_reason);

/* CLOEXEC, on or off, of every descriptor in S. 0 or -errno. */
int sv_saved_set_cloexec(const struct sv_saved *s, bool on);
