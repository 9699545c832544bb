/*
 * The guest's link where the VMM takes a TAP: the TAP lives in a network namespace that has nothing else and
 * no process in it, and uvms-tapd carries frames between its kernel side and passt (src/netd/tap-pump.h).
 */
#pragma once

/* The largest that passt takes in one frame (passt(1), --mtu). */
#define SV_TAP_MTU 65520

struct sv;

void sv_tap_init(struct sv *sv);

/*
 * Makes TAP (sv->tap.fd, for the VMM) and link, and starts uvms-tapd with STREAM_FD, the VMM's end of passt's
 * socket, which is taken over whatever is returned. -EOPNOTSUPP with *RET_REASON (heap): no TAPs here.
 */
int sv_tap_start(struct sv *sv, int stream_fd_consume, char **ret_reason);

/* Another uvms-tapd, after one ended: 0, -EAGAIN: too often. */
int sv_tap_again(struct sv *sv);
void sv_tap_stop(struct sv *sv);
