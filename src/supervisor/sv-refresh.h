/*
 * uvms refresh: the supervisor goes on as the program that is installed now.
 *
 * Theory of operation. The process stays, by execve(): its pid, its children, their death signals, the namespace
 * for those to come, the lock of the name, the environment. What it has in memory is written into a memfd
 * (sv-saved.h), and exactly the descriptors named there are kept open. Nothing of the VM takes part, and
 * the guest notices nothing.
 *
 * When. Only while the guest boots or runs, and only in a quiet moment: no session is being opened, the VMM is
 * being asked nothing, no process is stopped, the vsock device is not being replaced. It is waited for
 * SV_REFRESH_QUIET_USEC, in which new sessions wait; then the answer is Busy.
 *
 * A failure must not cost the VM. Before execve() the new program is started beside, confined, to read the very
 * text that it would go on from (--check-resume-fd); if it is missing, broken, silent or does not know that text,
 * the answer is an error and all goes on as before. What can still go wrong after execve() (no memory) ends
 * the VM as crashed. The call is answered by the new program, which is the proof that it works.
 *
 * A process that is not root loses its capabilities (those in its own user namespace) by execve(): they are
 * kept by the ambient set, which the new program empties before it starts anybody.
 */
#pragma once

#include <stdint.h>

#define SV_REFRESH_QUIET_USEC (UINT64_C(2) * 1000000)
#define SV_REFRESH_CHECK_USEC (UINT64_C(5) * 1000000)

struct sv;
struct sv_saved;

/* In the new program: before anything else; then goes on as S says, and answers the call. 0 or -errno. */
void sv_refresh_arrive(void);
int sv_refresh_resume(struct sv *sv, struct sv_saved *s);
