/*
 * Which accelerator works here, found out by timing, not by asking.
 *
 * A /dev/kvm that opens, creates a VM and even reaches HLT proves nothing: a software KVM (no vmx or
 * svm flag) does all that at some million instructions a second, and a stock guest hangs in it. So a
 * tiny real-mode guest runs 40,000 rounds of dec/jnz: ≈ 0.02 ms on hardware, ≈ 4 ms nested in an
 * emulated host, ≈ 39 ms on a software KVM. Not at HLT after 20 ms of CPU time means: emulate; where the CPU
 * has VMX or SVM it is 200 ms, because an emulated host may itself get little of its CPU.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct vm_dirs;

struct accel {
	bool kvm;           /* works, and fast enough to be used */
	uint64_t loop_usec; /* the timed loop; 0: it did not end, or was not run */
	uint64_t tsc_khz;   /* of the host; 0: unknown */
	char reason[160];   /* one line for people */
};

/* Probes now; at most ≈ 30 ms of CPU time, ≈ 210 ms where a CPU with VMX or SVM has no KVM that works. */
void accel_probe(struct accel *ret);

/* The same, kept in RUNTIME/.accel for this boot of the host. */
void accel_get(const struct vm_dirs *dirs, struct accel *ret);
