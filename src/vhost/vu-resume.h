/*
 * A vhost-user session that goes on in another process (vu-backend.h has the theory).
 *
 * The state that is read back was written by a process that may have fallen to its guest. It is checked as
 * if the front-end had said it: memory by guest-mem.h, addresses by translation, features by the
 * device's. What it could say in the worst case, that process could have done itself.
 */
#pragma once

#include "vu-backend.h"

/*
 * After open, before the loop runs: has the session kept by KEEP (borrowed), and goes on with the one
 * that a former process left, if there is one. Its rings go on where the used index in guest memory
 * stands; every queue that runs is kicked, since a kick may have been lost, and the guest is interrupted. 1:
 * taken over; 0: a new session; -ESTALE: the former process died in the middle of a message;
 * -ENODATA: a descriptor is missing; -errno: what was left is not to be used.
 */
int vu_resume(struct vu_backend *b, struct vu_keep *keep);
