/* The methods of io.uvms.VM on the control socket; see sv-control.c for the interface description. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct control_call;
struct sv;

/* Serves the starter's connection, if there is one; the socket follows with the plan's step. */
int sv_control_create(struct sv *sv);

/* Answers those who wait for readiness; the VM is ready. */
void sv_control_tell_ready(struct sv *sv);

/* The I-th of those who wait, and for what; false: there are fewer. And to wait as before. 0 or -errno. */
bool sv_control_waiter(
	const struct sv *sv, size_t i, const struct control_call **ret_call, const char **ret_what);
int sv_control_wait_again(struct sv *sv, struct control_call *call, const char *what);

/* Answers all who wait, and the starter even when his first call is still on its way: it is over. */
void sv_control_tell_end(struct sv *sv);
