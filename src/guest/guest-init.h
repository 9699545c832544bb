/*
 * /init of the initramfs, PID 1.
 *
 * Theory of operation. Everything up to the hand-over is a straight line, and each step that fails ends
 * the VM with one line on the console: nothing waits for ever, nothing opens a shell. The per-VM boot
 * description is read and unlinked before any code of the image runs; from then on the secret is in
 * this process (COMMAND) or in /run/uvms/secret (INIT, root only). Time and randomness are set from the
 * boot description at once and from the host's WELCOME before the image's init or any command runs.
 */
#pragma once

void guest_init_run(void) __attribute__((noreturn));
