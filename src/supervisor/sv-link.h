/*
 * A network that comes and goes while the VM runs: passt (and uvms-tapd), the device, and what the agent in the guest
 * makes of it. It lasts until it is detached or the VM ends; the VM's next start is without it.
 */
#pragma once

struct control_call;
struct sv;

/* Answers CALL, now or later. PUBLISH (strv, may be NULL) is taken over. */
void sv_link_attach_consume(struct sv *sv, struct control_call *call, char **publish);
void sv_link_detach(struct sv *sv, struct control_call *call);

/* The guest has booted again: it does not know of it. */
void sv_link_again(struct sv *sv);

/* The guest has given up the device ID, for which nobody waited. */
void sv_link_gone(struct sv *sv, const char *id);

/* CALL is gone; the VM ends. */
void sv_link_forget(struct sv *sv, struct control_call *call);
void sv_link_finish(struct sv *sv);
