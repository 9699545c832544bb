/* Kernel modules, in the order that the host has worked out. */
#pragma once

/* Loads what LIST names, one a line, below DIR. Warns about each that fails; -errno: no list. */
int guest_module_load_all(const char *list, const char *dir);
