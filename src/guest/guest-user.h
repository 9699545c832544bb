/* Users and groups from the files of the guest's root: no NSS, so it works in a static binary. */
#pragma once

#include "wire.h"

#include <sys/types.h>

#define GUEST_USER_GROUPS_MAX 256
#define GUEST_USER_HOME_MAX   4096

struct guest_user {
	uid_t uid;
	gid_t gid;
	size_t n_groups;
	gid_t groups[GUEST_USER_GROUPS_MAX]; /* supplementary */
	char name[256];
	char home[GUEST_USER_HOME_MAX];
};

/*
 * SPEC is "" (root), "name", "uid", "uid:gid" or "name:group". PASSWD and GROUP are the files'
 * texts (may be ""). A number need not be in the file; a name must: -ENOENT. -EINVAL: no such form.
 */
int guest_user_lookup(
	const char *spec, const char *passwd, const char *group, struct guest_user *ret);

/* The same with /etc/passwd and /etc/group. */
int guest_user_find(const char *spec, struct guest_user *ret);
