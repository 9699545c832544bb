/*
 * What this VM's guest may call (vm-service.h, connect): uvms-broker listens where its calls of those ports come out, and
 * carries the bytes; we find who is to answer, and hand it the connected descriptor.
 *
 * A call goes to the supervisor of the peer, by its control socket, which knows us by our process (sv-service); whoever
 * does not answer within SV_DIAL_USEC has refused. When the broker dies, another takes its place: what was
 * connected through it is lost, and nothing else.
 */
#pragma once

#include <stdint.h>

#define SV_DIAL_USEC          (UINT64_C(2) * 1000000)
#define SV_BROKER_RESTARTS    5 /* within SV_BROKER_WINDOW_USEC */
#define SV_BROKER_WINDOW_USEC (UINT64_C(10) * 1000000)

struct sv;
struct vm_step;

void sv_broker_init(struct sv *sv);

/* Appends the step where there are services to call. -errno with *RET_REASON (heap). */
int sv_broker_plan(struct sv *sv, char **ret_reason);
int sv_broker_start(struct sv *sv, const struct vm_step *step, char **ret_reason);

/* In the next image of this process: the child runs, sv->broker.channel_fd is open. */
int sv_broker_resume(struct sv *sv);
void sv_broker_stop(struct sv *sv);
