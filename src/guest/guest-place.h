/* What an image with an init of its own gets under /run: the agent, its secret, its unit. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define GUEST_PLACE_BINARY "/run/uvms/uvms-guest"
#define GUEST_PLACE_SECRET "/run/uvms/secret"

/* In the switched root, /run mounted. SELF is an open descriptor of this program. 0 or -errno. */
int guest_place_agent(int self_fd, const uint8_t *secret);

/* The unit, for a systemd that has not been executed yet. */
int guest_place_unit(bool ready_probe);

/* For other inits: starts the agent as a daemon. */
int guest_place_start(bool ready_probe);
