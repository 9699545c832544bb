/*
 * The vsock device of a VMM that connects to it (VMM_CAP_VSOCK_DIALS): a uvms-vsockd for each of its connections.
 *
 * Theory of operation. The listening socket is ours and has no name; the VMM has an O_PATH descriptor of it. It connects
 * when it makes the device, at each boot, and waits for answers without a limit of its own. So for each
 * connection a uvms-vsockd is started at once, with a session that is new; while the connection lasts, sv-vsockd replaces
 * those that die, as with any VMM, which sees nothing of it: we hold its connection, too. When the VMM has hung up, that
 * uvms-vsockd and all that was kept for a successor are of no use any more, whatever its end looks like; and the VMM has
 * SV_DIALED_USEC to come back, or to end.
 *
 * Trust: only the VMM's own process is served (SO_PEERCRED), one connection at a time. One that hangs up and comes back
 * again and again ends as a uvms-vsockd does that dies so: each connection counts as a death.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define SV_DIALED_USEC (UINT64_C(15) * 1000000)

struct sv;

/* The socket; the VMM's descriptor of it goes to sv->vmm_fds. 0 or -errno. */
int sv_dialed_open(struct sv *sv);

/* Serves from now on; also in the next image of this process. 0 or -errno. */
int sv_dialed_begin(struct sv *sv);

/* uvms-vsockd has ended. True: because the VMM had hung up, or just when it did; the next connection gets another one. */
bool sv_dialed_is_over(struct sv *sv);

void sv_dialed_finish(struct sv *sv);
