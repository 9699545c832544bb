/* The methods of io.uvms.VM on the control socket; see sv-control.c for the interface description. */
#pragma once

struct sv;

/* Serves the starter's connection, if there is one; the socket follows with the plan's step. */
int sv_control_create(struct sv *sv);

/* Answers those who wait for readiness; the VM is ready. */
void sv_control_tell_ready(struct sv *sv);

/* Answers all who wait, and the starter even when his first call is still on its way: it is over. */
void sv_control_tell_end(struct sv *sv);
