/*
 * The life of a VM as a table: state × event → action and next state. Pure; sv-actions does things.
 * docs/lifecycle.md is printed from it (uvms-supervisor --print-lifecycle).
 */
#pragma once

#include <stdbool.h>

enum sv_state {
	SV_STARTING,    /* the plan was executed; the VMM does not answer yet */
	SV_BOOTING,     /* the VMM answers; the guest is not ready */
	SV_RUNNING,     /* ready (perhaps degraded) */
	SV_PAUSED,      /* the guest stands still until it is resumed */
	SV_STOP_AGENT,  /* asked the agent to power off */
	SV_STOP_BUTTON, /* pressed the ACPI power button */
	SV_STOP_QUIT,   /* told the VMM to quit */
	SV_STOP_KILL,   /* SIGKILL was sent; the end is near */
	SV_ENDED,       /* the VMM is gone */
	SV_STATES,
};

enum sv_happening {
	SV_VMM_UP,         /* the control channel answers */
	SV_VMM_FAULT,      /* the control channel is silent, broken or talks nonsense */
	SV_VMM_GONE,       /* the process ended */
	SV_VSOCKD_GONE,    /* the process ended; another can take its place */
	SV_VSOCKD_LOST,    /* and none can: its session is over, or it died too often */
	SV_NAMESPACE_GONE, /* the init of the PID namespace ended, and all in it */
	SV_NETWORK_GONE,   /* passt ended */
	SV_GUEST_RESET,
	SV_GUEST_SHUTDOWN, /* powered off; the VMM's process will end */
	SV_GUEST_PANIC,
	SV_GUEST_PAUSED,  /* as it was asked to */
	SV_GUEST_RESUMED, /* as it was asked to */
	SV_AGENT_READY,
	SV_AGENT_REFUSED, /* the stop request was answered by an error, or not at all in 5 s */
	SV_STOP,          /* somebody asks for a clean stop (SIGTERM, uvms stop) */
	SV_FORCE,         /* somebody wants it gone */
	SV_OWNER_GONE,    /* the attached client went away */
	SV_DEADLINE,      /* of the present state */
	SV_HAPPENINGS,
};

enum sv_action {
	SV_DO_NOTHING,
	SV_DO_BOOT,    /* arm the start time-out */
	SV_DO_READY,   /* tell those who wait */
	SV_DO_NETWORK, /* start another passt */
	SV_DO_RENEW,   /* tell the guest what time it is */
	SV_DO_WAKE,    /* resume the guest, then ask the agent */
	SV_DO_REBOOT,  /* note it; a new agent will call */
	SV_DO_NOTE_SHUTDOWN,
	SV_DO_NOTE_PANIC,
	SV_DO_ASK_AGENT,
	SV_DO_PRESS_BUTTON,
	SV_DO_QUIT,
	SV_DO_REPLACE, /* start a vsockd that goes on where the last one ended */
	SV_DO_KILL,    /* as a rung of the ladder */
	SV_DO_FAIL,    /* kill because the start failed */
	SV_DO_CRASH,   /* kill what is left, because a part of it died or went mad */
	SV_DO_FINISH,  /* find the outcome, clean up, tell, leave */
	SV_ACTIONS,
};

/* Ready once, and not ending. */
static inline bool sv_fsm_is_up(enum sv_state s)
{
	return s == SV_RUNNING || s == SV_PAUSED;
}

struct sv_transition {
	enum sv_action action;
	enum sv_state next;
};

struct sv_transition sv_fsm_next(enum sv_state state, enum sv_happening happening);

const char *sv_fsm_state_name(enum sv_state s);
const char *sv_fsm_happening_name(enum sv_happening h);
const char *sv_fsm_action_name(enum sv_action a);

/* The whole table as Markdown. */
void sv_fsm_print(void);
