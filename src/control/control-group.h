/*
 * The group `uvms`, whose members may use the control sockets of system VMs (SECURITY.md). It is looked for
 * in /etc/group alone: a name service would be loaded into every supervisor, for a group that the
 * administrator of this host makes.
 */
#pragma once

#include <sys/types.h>

/* 0, or -ENOENT: this host has no such group. */
int control_group_find(gid_t *ret);
