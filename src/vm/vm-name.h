/* A VM's name: a file name, a host name and part of a unit name at once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VM_NAME_MAX 64 /* bytes; HOST_NAME_MAX, and machined's limit */

/*
 * 0, or -EINVAL with the reason in words: 1 … 64 of [A-Za-z0-9.-], beginning with a letter or digit,
 * ending in one, no "..".
 */
int vm_name_check(const char *name, const char **ret_reason);

/* "vm-" and eight hex digits at random, for runs without --name. */
void vm_name_random(char out[static VM_NAME_MAX + 1]);

/* 128 bits derived from KIND and NAME alone (machine-id, UUID …), stable for ever, as 32 hex digits. */
void vm_name_id(const char *kind, const char *name, char out[static 33]);
