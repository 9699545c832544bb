/*
 * The guest's network: passt, one per VM, in the host's network namespace with the VM's uid.
 *
 * The guest has one interface on a link of its own, whose other end is passt: no bridge, no TAP, no
 * address of the host, and the host's loopback is not reachable through it. When passt dies, another is
 * started on the same socket: what was connected through it is lost, the link is not.
 */
#pragma once

#include <stdint.h>

struct boot_desc;
struct sv;
struct sv_child;
struct vm_step;

/* Appends the step to the plan. -errno with *RET_REASON and *RET_NEXT (heap). */
int sv_net_plan(struct sv *sv, char **ret_reason, char **ret_next);

/* As the VMM wants it: "02:…". */
void sv_net_mac(const char *vm_name, char out[static 18]);
void sv_net_describe(const struct sv *sv, struct boot_desc *d);

/* passt, and what is between it and the VMM. -EOPNOTSUPP with *RET_REASON (heap): not here. */
int sv_net_start(struct sv *sv, const struct vm_step *step, char **ret_reason);
void sv_net_stop(struct sv *sv);

/* Which of its processes does not run; NULL: all do. Borrowed. */
struct sv_child *sv_net_ended(struct sv *sv);

/* passt or uvms-tapd ended while the VM ran: starts another, or says that the network is lost. */
void sv_net_restart(struct sv *sv, const char *cause);
