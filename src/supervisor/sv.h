/*
 * The supervisor of one VM: what it owns, and how its parts call each other.
 *
 * Theory of operation. One process per VM, one event loop, no threads. At the start it takes the name
 * lock, makes the incarnation's directory, builds the plan and executes it step by step (sv-steps);
 * everything after that is a happening (sv-fsm) that comes from a source: a child that ended
 * (sv-children), the VMM (vmm.h), the agent (sv-agent), a client (sv-control), a signal or a deadline.
 * sv_happen() looks the transition up and sv-actions does it. At the end the steps are undone in
 * reverse, what is to be kept goes to vms/NAME/last, the name is released, and those who wait are told.
 *
 * Trust: the guest (agent frames, console bytes), the VMM (QMP) and clients are hostile. The supervisor
 * never relays a session's bytes; it opens, authenticates and hands descriptors over.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "accel.h"
#include "agent-wire.h"
#include "keeper-wire.h"
#include "ratelimit.h"
#include "runtime-dir.h"
#include "store.h"
#include "sv-fsm.h"
#include "sv-logfile.h"
#include "vm-dirs.h"
#include "vm-plan.h"
#include "vm-service.h"
#include "vm-spec.h"
#include "vm-status.h"
#include "vm-virtiofsd.h"
#include "vm-volume.h"
#include "vmm.h"

typedef struct sd_event sd_event;
typedef struct sd_event_source sd_event_source;
struct control_call;
struct control_server;
struct sv;
struct sv_agent;
struct sv_console;
struct sv_waiter;

#define SV_VSOCK_DIR "vsock" /* in the incarnation's directory */

enum {
	SV_FDS_MAX = VMM_FD_DISK + VMM_DISKS_MAX,
	SV_QUEUE_MAX = 16,
	SV_DIALS_MAX = 64,
	SV_SHARES_MAX = VM_STATUS_MOUNTS_MAX,
};

struct sv_child {
	struct sv *sv;    /* borrowed */
	const char *name; /* of its log: NAME.log */
	enum sv_happening on_end;
	void (*ended)(struct sv_child *c);            /* is called instead, when set */
	pid_t pid;                                    /* for messages and the status only */
	int pidfd;                                    /* owned; -EBADF: not running */
	siginfo_t end;                                /* how it ended, once it has */
	int output_fd;                                /* owned: its stdout and stderr */
	sd_event_source *exit_source, *output_source; /* owned */
	struct sv_logfile log;
	bool has_ended;         /* and was reaped */
	bool is_stopped;        /* by a signal: sv-watch */
	struct ratelimit stops; /* how often */
	sd_event_source *grace; /* owned: until SIGCONT */
};

/* The guest's link where the VMM takes a TAP: sv-tap. */
struct sv_tap {
	struct sv_child child;
	int fd;        /* owned until the VMM has it: the TAP */
	int link_fd;   /* owned: its kernel side, for the next uvms-tapd */
	int stream_fd; /* owned: the VMM's end of passt's socket, for it as well */
	unsigned restarts;
};

/* uvms-vsockd and what its successor needs: sv-vsockd. */
struct sv_vsockd {
	struct sv_child child;
	int device_fd;                               /* owned: its end of vhost-user */
	int dialed_fd;                               /* owned: where the VMM connects: sv-dialed */
	int listen_fd;                               /* owned: v */
	int table_fd, state_fd;                      /* owned: written by it, never read here */
	int keeper_fd;                               /* owned: our end of the channel */
	int slots[KEEPER_SLOTS];                     /* owned: what came by its session */
	sd_event_source *keeper_source, *ping_timer; /* owned */
	sd_event_source *dialed_source, *absent_timer; /* owned */
	uint32_t cookie;                               /* of the last PING */
	bool pinging, served;
	uint64_t started_usec; /* CLOCK_MONOTONIC */
	struct ratelimit messages, early, deaths, strangers;
};

/* A call of the guest that a peer is to answer: sv-broker. */
struct sv_dial {
	struct sv *sv; /* borrowed */
	struct vm_connect connect;
	uint32_t id;                 /* the broker's */
	int fd;                      /* owned: the peer's control socket */
	sd_event_source *io, *timer; /* owned; no TIMER: a free place */
};

/* What the guest may call, and who carries it: sv-broker. */
struct sv_broker {
	struct sv_child child;
	int channel_fd;                  /* owned: our end */
	sd_event_source *channel_source; /* owned */
	struct sv_dial dials[SV_DIALS_MAX];
	struct ratelimit deaths, refusals;
};

enum sv_handover_result {
	SV_HANDOVER_DONE,  /* the next one serves, with all connections */
	SV_HANDOVER_RESET, /* the next one serves, and they were reset */
	SV_HANDOVER_STAYS, /* the old one serves */
	SV_HANDOVER_NONE,  /* there is none: the VMM brings its own device */
};

/* The next vsockd while the present one hands over: sv-handover. */
struct sv_handover {
	int phase;
	struct sv_child next;
	int keeper_fd;                          /* owned: our end of the next one's channel */
	int channel_fd;                         /* owned: for the one in service, to the next one */
	sd_event_source *keeper_source, *timer; /* owned */
	bool kept;                              /* the connections were */
	uint64_t asked_usec;                    /* CLOCK_MONOTONIC: nobody serves from then on */
	void (*done)(struct sv *sv, enum sv_handover_result result); /* NULL: nobody asks */
};

/* A client wants the next image of this process: sv-refresh. */
struct sv_refresh {
	char *program; /* owned: the caller's uvms-supervisor; NULL: the one beside ours */
	struct control_call *call; /* borrowed; NULL: nobody does */
	struct control_call *done; /* borrowed: is to be answered, as this is that image */
	sd_event_source *timer;    /* owned */
	uint64_t until_usec;       /* CLOCK_MONOTONIC */
	char from[65];             /* the version that this process was before */
};

/* A volume that was added while the VM ran: sv-attach. */
struct sv_disk {
	char name[VM_VOLUME_NAME_MAX + 1];
	int fd; /* owned: the lock on it; -EBADF: none */
	uint32_t slot;
	bool gone; /* the guest gave it up when nobody waited for that */
};

/* A client changes the VM while it runs: sv-change. */
struct sv_change {
	struct control_call *call; /* borrowed; NULL: nobody waits for it */
	struct vmm_op op;          /* the last one begun */
	bool busy;                 /* and it has not ended */
	void (*ended)(struct sv *sv, int error, const char *reason); /* for who asked for it */
};

/* A snapshot is being made: sv-snapshot. */
struct sv_snapshot {
	int phase;
	struct control_call *call; /* borrowed; NULL: nobody waits for it */
	char *path;                /* owned: of the VMM's directory */
	int dir_fd;                /* owned: the same */
	int volumes_fd;            /* owned: the directory of the copies */
	struct sv_child copy;      /* who makes them */
	bool stop;                 /* the VM ends when it is made */
	bool is_out;               /* the guest has no vsock device */
	bool is_paused;
	int error;              /* the first one */
	char *reason;           /* owned: its words */
	sd_event_source *timer; /* owned: for the agent */
};

/* A network that was added while the VM ran: sv-link. */
struct sv_link {
	bool attached;
	bool gone; /* as a disk */
	uint32_t slot;
	struct control_call *call; /* borrowed: waits for the guest; NULL: nobody does */
	sd_event_source *timer;    /* owned: the guest's word is due; NULL: nobody waits for it */
};

enum sv_share_kind {
	SV_SHARE_NONE,
	SV_SHARE_DIR,
	SV_SHARE_IMAGE,
};

/* A directory of the host, or the files of an image, mounted while the VM runs: sv-share. */
struct sv_share {
	enum sv_share_kind kind;
	struct sv_child child; /* DIR: virtiofsd */
	char *path;            /* owned: where in the guest */
	char *source;          /* owned: the directory, the image */
	char *digest;          /* owned: IMAGE: of its layer */
	char *program;         /* owned: DIR: virtiofsd, and which one */
	char *fault;           /* owned: why it is not mounted; NULL: it is */
	enum vm_virtiofsd which;
	int fd;                   /* owned: the directory (O_PATH), or the image's file */
	int listen_fd;            /* owned: where a VMM that dials finds the next virtiofsd */
	sd_event_source *callers; /* owned: there, when there is none */
	uint64_t bytes;           /* IMAGE */
	uint32_t slot;
	uint32_t restarts;
	bool gone; /* as a disk */
	bool lost; /* virtiofsd is, and the device leads nowhere */
};

/* What is being done to one of them. */
struct sv_sharing {
	int phase;
	struct sv_share *share;    /* borrowed from sv->shares */
	struct control_call *call; /* borrowed; NULL: nobody waits for it */
	sd_event_source *timer;    /* owned: the agent's word is due, or virtiofsd's */
	int fd;                    /* owned until the VMM has it: a connection to virtiofsd */
	int error;                 /* what is to be told when all is undone */
	char *what, *cause;        /* owned: its words */
	bool stays;                /* it could not be undone */
	uint32_t again; /* bits: the guest has booted again, and is to be told of these */
};

struct sv {
	sd_event *event; /* owned */
	struct vm_dirs dirs;
	struct vm_spec spec;
	struct vm_plan plan;
	struct vm_status status;
	struct accel accel;
	const struct vmm_backend *backend;
	uint32_t vmm_version; /* of its program; 0: of no interest */
	struct store *store;  /* owned */
	struct store_image image;
	struct store_kernel kernel;

	int vm_fd;                  /* owned: STATE/vms/NAME */
	struct runtime_dir runtime; /* owned: the name and its lock, which every child inherits */
	int dir_fd;                 /* owned: the incarnation's directory */
	int trace_fd;               /* owned: the steps as they are executed */

	int vmm_fds[SV_FDS_MAX]; /* owned until the VMM runs; index is enum vmm_fd */
	int vmm_tty_fds[2];      /* owned until then: its standard input and output, a terminal */
	int vmm_control_fd;      /* owned until it is attached: our end of QMP, the API's socket */
	int vmm_events_fd;       /* owned until then: its event stream */
	int vsock_fd;            /* owned: SV_VSOCK_DIR */
	int net_fd;              /* owned: passt's end of the guest's link, for the next passt */
	int life_fd;             /* owned: the namespace's init ends when it closes */

	struct sv_child vmm_child, namespace_child, net_child;
	unsigned net_restarts;
	struct sv_tap tap;
	struct sv_vsockd vsockd;
	struct sv_broker broker;
	struct sv_handover handover;
	struct vmm *vmm;                /* owned */
	struct sv_agent *agent;         /* owned */
	struct sv_console *console;     /* owned */
	struct control_server *control; /* owned */
	struct sv_waiter *waiters;      /* owned */
	struct sv_refresh refresh;
	struct sv_change change;
	struct sv_link link;
	struct sv_share shares[SV_SHARES_MAX];
	struct sv_sharing sharing;
	struct sv_snapshot snapshot;
	struct sv_disk disk; /* of the change under way */
	struct sv_disk disks[VM_HOTPLUG_SLOTS_MAX];
	int client_fd; /* owned until the control server has it: the starter's connection */

	enum sv_state state;
	sd_event_source *deadline; /* owned */
	sd_event_source *linger;   /* owned: a channel ended, the process not yet */
	enum sv_happening lingering;
	enum sv_happening queue[SV_QUEUE_MAX];
	size_t n_queue;
	bool in_queue;

	uint64_t stop_timeout_usec;
	struct ratelimit events;  /* of this incarnation: sv-events */
	struct ratelimit refused; /* calls of other VMs: sv-service */
	bool guest_shutdown;      /* the VMM said that the guest powered off */
	bool update;              /* another incarnation follows: sv-update */
	bool finished;
	size_t steps_done;
	bool owned;                   /* the VM ends with the starter's connection */
	bool starter_waits;           /* the starter's connection has not made its first call */
	char *failure, *failure_next; /* owned: why the start failed, for those who wait */
	int failure_errno;
	sd_event_source *finish; /* owned */
	uint8_t secret[AGENT_WIRE_SECRET];
	const char *restore; /* borrowed: the snapshot to go on from; NULL: boot */
	char *restore_path;  /* owned: what of it is the VMM's */
	int restore_fd;      /* owned until the VMM is attached: the same */
};

/* Something happened: look it up, do it, write the status. CAUSE (may be NULL) is kept for the end. */
void sv_happen(struct sv *sv, enum sv_happening h, const char *cause);

/* A channel of a process ended. When the process itself has not within 500 ms, H happens. */
void sv_linger(struct sv *sv, enum sv_happening h);

/* The cause of the end, first one wins. */
void sv_blame(struct sv *sv, const char *outcome, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

void sv_status_save(struct sv *sv);

/*
 * A client asks for the program that is installed now (sv-refresh): CALL is answered by that one, or at
 * once with an error. CALL is gone, and the VM ends: nothing comes of it.
 */
void sv_refresh_ask(struct sv *sv, struct control_call *call, const char *program);
void sv_refresh_forget(struct sv *sv, struct control_call *call);
void sv_refresh_finish(struct sv *sv);

/*
 * A client asks for the snapshot NAME (sv-snapshot): CALL is answered now or later, and is gone; STOP: the VM ends
 * once it is made. As its parts see it: the agent has called home; it has answered FREEZE or THAW; a stop is wanted,
 * and the agent is to be asked when all is over; the VM ends. vsockd has ended (true: as the VMM has hung up).
 */
void sv_snapshot_ask(struct sv *sv, struct control_call *call, const char *name, bool stop);
void sv_snapshot_init(struct sv *sv);
bool sv_snapshot_is_under_way(const struct sv *sv);
bool sv_snapshot_took(const struct sv *sv);
void sv_snapshot_agent_called(struct sv *sv);
void sv_snapshot_told(struct sv *sv, bool frozen, int error);
void sv_snapshot_cancel(struct sv *sv);
void sv_snapshot_forget(struct sv *sv, struct control_call *call);
void sv_snapshot_finish(struct sv *sv);

/*
 * The live replacement of vsockd (sv-handover), as sv-vsockd sees it: vsockd has ended (true: that was part of
 * it, and the next one serves); it said UP or STAYS (false: it may not, now); all of it is over.
 */
bool sv_handover_is_under_way(const struct sv *sv);
bool sv_handover_took(struct sv *sv);
bool sv_handover_told(struct sv *sv, enum keeper_op op);
void sv_handover_finish(struct sv *sv);

/*
 * An attached network (sv-link), as sv-agent sees it: the guest has set it up (ERROR 0), or says why not; the agent has
 * called home, and knows of no request.
 */
void sv_link_told(struct sv *sv, int error);
void sv_link_agent_called(struct sv *sv);

/* The same, as sv-net sees it: it is being attached, and is not started again when it ends; then it has. */
bool sv_link_is_coming(const struct sv *sv);
void sv_link_lost(struct sv *sv);

/*
 * Shares (sv-share), as sv-agent sees them: MOUNT or UNMOUNT was answered (ERROR 0: it is so); the agent has called
 * home, and knows of no request. Is one being attached or detached?
 */
void sv_share_told(struct sv *sv, int error);
void sv_share_agent_called(struct sv *sv);
bool sv_share_is_under_way(const struct sv *sv);

/* Before something is asked of the VMM: who stands behind its devices goes on, if somebody stopped it. */
void sv_share_wake(const struct sv *sv);

/* Of this program. */
const char *sv_version(void);
