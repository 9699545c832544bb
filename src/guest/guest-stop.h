/* Ends of the guest: asking its init, or the kernel. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* systemd is PID 1 (sd_booted(3)). */
bool guest_stop_has_systemd(void);

/* Asks PID 1, by the signals of systemd(1) or else of busybox init. MODE: enum agent_wire_stop. */
int guest_stop_ask_init(uint8_t mode);

/* As PID 1: kills what is left, syncs, and ends the machine. */
void guest_stop_now(uint8_t mode) __attribute__((noreturn));

/* One line "uvms: fatal: …" on the console, then power-off; in another process than PID 1: exit. */
void guest_stop_fatal(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* "uvms: warning: …" on stderr. */
void guest_stop_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));
