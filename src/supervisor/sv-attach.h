/*
 * Volumes that come and go while the VM runs: one lock, one slot and one name each. The guest sees a disk whose
 * serial number is the volume's name.
 */
#pragma once

struct control_call;
struct sv;

void sv_attach_init(struct sv *sv);

/* Answer CALL, now or later. NAME is borrowed. */
void sv_attach_ask(struct sv *sv, struct control_call *call, const char *name);
void sv_detach_ask(struct sv *sv, struct control_call *call, const char *name);

/* One that is free for another device; -ENOSPC. With any back-end, so that a VM takes no more than it was started for. */
int sv_attach_slot(const struct sv *sv);

/* The guest has given up the device ID, for which nobody waited: detached, it is let go. */
void sv_attach_gone(struct sv *sv, const char *id);

/* The VMM is gone. */
void sv_attach_finish(struct sv *sv);
