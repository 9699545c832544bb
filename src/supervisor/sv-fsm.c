#include "sv-fsm.h"

#include <assert.h>
#include <stdio.h>

#include "cleanup.h"

/* clang-format off */
static const struct sv_transition table[SV_STATES][SV_HAPPENINGS] = {
	[SV_STARTING] = {
		[SV_VMM_UP]		= { SV_DO_BOOT,		SV_BOOTING },
		[SV_VMM_FAULT]		= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_REPLACE,	SV_STARTING },
		[SV_VSOCKD_LOST]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_GUEST_RESET]	= { SV_DO_NOTHING,	SV_STARTING },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTE_SHUTDOWN, SV_STARTING },
		[SV_GUEST_PANIC]	= { SV_DO_NOTE_PANIC,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_STARTING },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_STARTING },
		[SV_AGENT_READY]	= { SV_DO_READY,	SV_RUNNING },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_STARTING },
		[SV_STOP]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_DEADLINE]		= { SV_DO_FAIL,		SV_STOP_KILL },
	},
	[SV_BOOTING] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_BOOTING },
		[SV_VMM_FAULT]		= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_REPLACE,	SV_BOOTING },
		[SV_VSOCKD_LOST]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_GUEST_RESET]	= { SV_DO_REBOOT,	SV_BOOTING },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTE_SHUTDOWN, SV_BOOTING },
		[SV_GUEST_PANIC]	= { SV_DO_NOTE_PANIC,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_BOOTING },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_BOOTING },
		[SV_AGENT_READY]	= { SV_DO_READY,	SV_RUNNING },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_BOOTING },
		[SV_STOP]		= { SV_DO_ASK_AGENT,	SV_STOP_AGENT },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_ASK_AGENT,	SV_STOP_AGENT },
		[SV_DEADLINE]		= { SV_DO_FAIL,		SV_STOP_KILL },
	},
	[SV_RUNNING] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_RUNNING },
		[SV_VMM_FAULT]		= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_REPLACE,	SV_RUNNING },
		[SV_VSOCKD_LOST]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_NETWORK,	SV_RUNNING },
		[SV_GUEST_RESET]	= { SV_DO_REBOOT,	SV_BOOTING },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTE_SHUTDOWN, SV_RUNNING },
		[SV_GUEST_PANIC]	= { SV_DO_NOTE_PANIC,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_PAUSED },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_RUNNING },
		[SV_AGENT_READY]	= { SV_DO_NOTHING,	SV_RUNNING },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_RUNNING },
		[SV_STOP]		= { SV_DO_ASK_AGENT,	SV_STOP_AGENT },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_ASK_AGENT,	SV_STOP_AGENT },
		[SV_DEADLINE]		= { SV_DO_NOTHING,	SV_RUNNING },
	},
	[SV_PAUSED] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_PAUSED },
		[SV_VMM_FAULT]		= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_REPLACE,	SV_PAUSED },
		[SV_VSOCKD_LOST]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_NETWORK,	SV_PAUSED },
		[SV_GUEST_RESET]	= { SV_DO_REBOOT,	SV_BOOTING },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTE_SHUTDOWN, SV_PAUSED },
		[SV_GUEST_PANIC]	= { SV_DO_NOTE_PANIC,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_PAUSED },
		[SV_GUEST_RESUMED]	= { SV_DO_RENEW,	SV_RUNNING },
		[SV_AGENT_READY]	= { SV_DO_NOTHING,	SV_PAUSED },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_PAUSED },
		[SV_STOP]		= { SV_DO_WAKE,	SV_STOP_AGENT },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_WAKE,	SV_STOP_AGENT },
		[SV_DEADLINE]		= { SV_DO_NOTHING,	SV_PAUSED },
	},
	[SV_STOP_AGENT] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_STOP_AGENT },
		[SV_VMM_FAULT]		= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_REPLACE,	SV_STOP_AGENT },
		[SV_VSOCKD_LOST]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_NOTHING,	SV_STOP_AGENT },
		[SV_GUEST_RESET]	= { SV_DO_QUIT,		SV_STOP_QUIT },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTE_SHUTDOWN, SV_STOP_AGENT },
		[SV_GUEST_PANIC]	= { SV_DO_NOTE_PANIC,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_STOP_AGENT },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_STOP_AGENT },
		[SV_AGENT_READY]	= { SV_DO_ASK_AGENT,	SV_STOP_AGENT },
		[SV_AGENT_REFUSED]	= { SV_DO_PRESS_BUTTON,	SV_STOP_BUTTON },
		[SV_STOP]		= { SV_DO_NOTHING,	SV_STOP_AGENT },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_NOTHING,	SV_STOP_AGENT },
		[SV_DEADLINE]		= { SV_DO_PRESS_BUTTON,	SV_STOP_BUTTON },
	},
	[SV_STOP_BUTTON] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_VMM_FAULT]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_REPLACE,	SV_STOP_BUTTON },
		[SV_VSOCKD_LOST]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_CRASH,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_GUEST_RESET]	= { SV_DO_QUIT,		SV_STOP_QUIT },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTE_SHUTDOWN, SV_STOP_BUTTON },
		[SV_GUEST_PANIC]	= { SV_DO_NOTE_PANIC,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_AGENT_READY]	= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_STOP]		= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_NOTHING,	SV_STOP_BUTTON },
		[SV_DEADLINE]		= { SV_DO_QUIT,		SV_STOP_QUIT },
	},
	[SV_STOP_QUIT] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_VMM_FAULT]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_VSOCKD_LOST]	= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_GUEST_RESET]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_GUEST_PANIC]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_AGENT_READY]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_STOP]		= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_FORCE]		= { SV_DO_KILL,		SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_NOTHING,	SV_STOP_QUIT },
		[SV_DEADLINE]		= { SV_DO_KILL,		SV_STOP_KILL },
	},
	[SV_STOP_KILL] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_VMM_FAULT]		= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_VMM_GONE]		= { SV_DO_FINISH,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_VSOCKD_LOST]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_NAMESPACE_GONE]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_NETWORK_GONE]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_GUEST_RESET]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_GUEST_PANIC]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_AGENT_READY]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_STOP]		= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_FORCE]		= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_OWNER_GONE]		= { SV_DO_NOTHING,	SV_STOP_KILL },
		[SV_DEADLINE]		= { SV_DO_FINISH,	SV_ENDED },
	},
	[SV_ENDED] = {
		[SV_VMM_UP]		= { SV_DO_NOTHING,	SV_ENDED },
		[SV_VMM_FAULT]		= { SV_DO_NOTHING,	SV_ENDED },
		[SV_VMM_GONE]		= { SV_DO_NOTHING,	SV_ENDED },
		[SV_VSOCKD_GONE]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_VSOCKD_LOST]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_NAMESPACE_GONE]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_NETWORK_GONE]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_GUEST_RESET]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_GUEST_SHUTDOWN]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_GUEST_PANIC]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_GUEST_PAUSED]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_GUEST_RESUMED]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_AGENT_READY]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_AGENT_REFUSED]	= { SV_DO_NOTHING,	SV_ENDED },
		[SV_STOP]		= { SV_DO_NOTHING,	SV_ENDED },
		[SV_FORCE]		= { SV_DO_NOTHING,	SV_ENDED },
		[SV_OWNER_GONE]		= { SV_DO_NOTHING,	SV_ENDED },
		[SV_DEADLINE]		= { SV_DO_NOTHING,	SV_ENDED },
	},
};
/* clang-format on */

static const char *const state_names[] = {
	[SV_STARTING] = "starting",
	[SV_BOOTING] = "booting",
	[SV_RUNNING] = "running",
	[SV_PAUSED] = "paused",
	[SV_STOP_AGENT] = "stopping (agent)",
	[SV_STOP_BUTTON] = "stopping (power button)",
	[SV_STOP_QUIT] = "stopping (quit)",
	[SV_STOP_KILL] = "stopping (kill)",
	[SV_ENDED] = "stopped",
};
static_assert(ARRAY_SIZE(state_names) == SV_STATES, "every state has a name");

static const char *const happening_names[] = {
	[SV_VMM_UP] = "vmm-up",
	[SV_VMM_FAULT] = "vmm-fault",
	[SV_VMM_GONE] = "vmm-gone",
	[SV_VSOCKD_GONE] = "vsockd-gone",
	[SV_VSOCKD_LOST] = "vsockd-lost",
	[SV_NAMESPACE_GONE] = "namespace-gone",
	[SV_NETWORK_GONE] = "network-gone",
	[SV_GUEST_RESET] = "guest-reset",
	[SV_GUEST_SHUTDOWN] = "guest-shutdown",
	[SV_GUEST_PANIC] = "guest-panic",
	[SV_GUEST_PAUSED] = "guest-paused",
	[SV_GUEST_RESUMED] = "guest-resumed",
	[SV_AGENT_READY] = "agent-ready",
	[SV_AGENT_REFUSED] = "agent-refused",
	[SV_STOP] = "stop",
	[SV_FORCE] = "force",
	[SV_OWNER_GONE] = "owner-gone",
	[SV_DEADLINE] = "deadline",
};
static_assert(ARRAY_SIZE(happening_names) == SV_HAPPENINGS, "every happening has a name");

static const char *const action_names[] = {
	[SV_DO_NOTHING] = "-",
	[SV_DO_BOOT] = "boot",
	[SV_DO_READY] = "ready",
	[SV_DO_NETWORK] = "network",
	[SV_DO_RENEW] = "renew",
	[SV_DO_WAKE] = "wake, ask agent",
	[SV_DO_REBOOT] = "reboot",
	[SV_DO_NOTE_SHUTDOWN] = "note shutdown",
	[SV_DO_NOTE_PANIC] = "note panic, kill",
	[SV_DO_ASK_AGENT] = "ask agent",
	[SV_DO_PRESS_BUTTON] = "press button",
	[SV_DO_QUIT] = "quit",
	[SV_DO_REPLACE] = "replace",
	[SV_DO_KILL] = "kill",
	[SV_DO_FAIL] = "fail, kill",
	[SV_DO_CRASH] = "crash, kill",
	[SV_DO_FINISH] = "finish",
};
static_assert(ARRAY_SIZE(action_names) == SV_ACTIONS, "every action has a name");

struct sv_transition sv_fsm_next(enum sv_state state, enum sv_happening happening)
{
	return table[state][happening];
}

const char *sv_fsm_state_name(enum sv_state s)
{
	return state_names[s];
}

const char *sv_fsm_happening_name(enum sv_happening h)
{
	return happening_names[h];
}

const char *sv_fsm_action_name(enum sv_action a)
{
	return action_names[a];
}

void sv_fsm_print(void)
{
	printf("| event \\ state |");
	for (size_t s = 0; s < SV_ENDED; s++)
		printf(" %s |", state_names[s]);
	printf("\n|---|");
	for (size_t s = 0; s < SV_ENDED; s++)
		printf("---|");
	for (size_t h = 0; h < SV_HAPPENINGS; h++) {
		printf("\n| %s |", happening_names[h]);
		for (size_t s = 0; s < SV_ENDED; s++) {
			struct sv_transition t = table[s][h];

			if (t.action == SV_DO_NOTHING && t.next == s)
				printf(" |");
			else
				printf(" %s → %s |", action_names[t.action], state_names[t.next]);
		}
	}
	printf("\n");
}
