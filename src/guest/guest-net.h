/* The network interface, as the boot description says. */
#pragma once

#include "boot-desc.h"

/*
 * Address, route and resolver of the interface with that hardware address; /etc is the new root's.
 * 0; -ENODEV: there is no such interface; else -errno of the step that *RET_STEP names.
 */
int guest_net_configure(const struct boot_desc_network *n, const char **ret_step);

void guest_net_loopback(void);
