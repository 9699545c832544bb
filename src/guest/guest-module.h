/* Kernel modules, in the order that the host has worked out. */
#pragma once

/* Loads what LIST names, one a line, below DIR. Warns about each that fails; -errno: no list. */
int guest_module_load_all(const char *list, const char *dir);

/*
 * The same in a child of low priority, for modules that nobody waits for: entropy (there is a seed),
 * balloon, panic notifier, power button; then it frees what the initramfs holds. What it needs is open
 * before this returns, so the root may be switched at once; whoever is PID 1 reaps it.
 */
void guest_module_load_late(const char *const *lists, const char *dir);
