/*
 * The VMM as a process of the incarnation: its channels, its start, what it tells. What kind it is says its
 * capabilities (vmm.h): one has a connected socket, another one an API that is told what to run.
 */
#pragma once

struct sv;
struct vm_step;
struct vmm_saved;

/* Before it is started: control channel, event stream, and (sv_vmm_console()) the guest's serial port. */
int sv_vmm_prepare(struct sv *sv);

/* Our end of the serial port, non-blocking, or -errno. */
int sv_vmm_console(struct sv *sv);
void sv_vmm_release(struct sv *sv);

/* The steps "vmm" and "boot", and the undo of both. */
int sv_vmm_start(struct sv *sv, const struct vm_step *step, char **ret_reason);
int sv_vmm_boot(struct sv *sv, const struct vm_step *step, char **ret_reason);
void sv_vmm_stop(struct sv *sv);

/* It cannot be talked to any more. A guest that has powered off is no crash, whatever its VMM does after that. */
void sv_vmm_fault(struct sv *sv, const char *cause);

/* In the next image of this process. */
int sv_vmm_resume(struct sv *sv, const struct vmm_saved *saved);
