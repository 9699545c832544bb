/*
 * The VMM as its implementer sees it. One table a back-end; every hook is called from the event loop,
 * must not block and reports what happens by vmm_emit(). Source for Cloud Hypervisor's part of the
 * contract: its API answers one call at a time and a call may block, so each has its own deadline.
 */
#pragma once

#include "vmm.h"

typedef struct sd_event_source sd_event_source;

struct vmm_backend {
	const char *name;
	unsigned caps;
	const char *program;     /* looked up in $PATH, or beside uvms */
	const char *program_env; /* environment variable that overrides it; may be NULL */

	/* A reason (heap) why CONFIG cannot be run, NULL when it can. Touches nothing. */
	char *(*check)(const struct vmm_config *c);

	/* As vmm_check_snapshot(). May be NULL. */
	char *(*check_snapshot)(uint32_t version, size_t n_volumes);

	/* As vmm_can_restore_on_demand(); NULL: none can. */
	bool (*can_restore_on_demand)(uint32_t version);

	/* Appends the arguments after argv[0]. Only the descriptors of enum vmm_fd may be named. */
	int (*arguments)(const struct vmm_config *c, char ***argv);

	/* What a program's version must be, from its own text ("… v53.0.0"): 0 when it is too old. */
	uint32_t (*version)(const char *text, char **ret_reason);

	/* VMM_CAP_API: appends "METHOD NAME BODY" for each call. */
	int (*calls)(const struct vmm_config *c, char ***calls);

	/* Fills V->impl; the channels are taken over whatever is returned. */
	int (*attach_consume)(
		struct vmm *v, const struct vmm_channels *c, const char *const *calls);
	int (*power_button)(struct vmm *v);
	int (*quit)(struct vmm *v);

	/* Begins OP, of which its capabilities speak; vmm_op_end() says how it ended. -EOPNOTSUPP: not that far. */
	int (*operate)(struct vmm *v, const struct vmm_op *op);

	/* As vmm_cancel(): it is still to end. May be NULL: it ends when it ends. */
	void (*cancel)(struct vmm *v);

	/* Nobody waits for it any more: its end, when it comes, is nobody's. May be NULL. */
	void (*forget)(struct vmm *v);

	/* VMM_CAP_API: as vmm_owes(). */
	const char *(*owes)(const struct vmm *v);

	/* What goes on in the next image of this process, borrowed; -EBUSY: not now. */
	int (*save)(const struct vmm *v, struct vmm_saved *ret);
	/* As attach_consume(), for a VMM that is up already. */
	int (*restore_consume)(struct vmm *v, const struct vmm_saved *saved);
	void (*detach)(struct vmm *v); /* frees V->impl; NULL-safe */
};

struct vmm {
	const struct vmm_backend *backend;
	sd_event *event; /* borrowed: outlives the VMM */
	vmm_handler handler;
	void *userdata;
	void *impl;          /* owned by the back-end */
	vmm_op_done op_done; /* NULL: no operation is under way */
	void *op_userdata;
	sd_event_source *op_timer; /* owned */
};

/* For those who use one channel: closes the others. */
void vmm_channels_close(const struct vmm_channels *c);

static inline void vmm_emit(struct vmm *v, enum vmm_event event, const char *detail)
{
	v->handler(v, event, detail, v->userdata);
}

/* The operation under way has ended; nothing when there is none. */
void vmm_op_end(struct vmm *v, int error, const char *reason);

extern const struct vmm_backend vmm_backend_ch;
extern const struct vmm_backend vmm_backend_qemu;
extern const struct vmm_backend vmm_backend_null;
