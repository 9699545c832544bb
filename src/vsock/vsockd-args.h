/* The command line of uvms-vsockd. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct vsockd_args {
	const char *name, *path; /* borrowed from argv */
	uint64_t cid;
	int vhost_fd, listen_fd, table_fd, keeper_fd, state_fd, from_fd; /* -EBADF: not given */
	bool may_shrink, no_seccomp, help, version;
};

/* 0; -EINVAL with *RET_BAD the argument that is wrong, missing or unknown. */
int vsockd_args_parse(int argc, char **argv, struct vsockd_args *ret, const char **ret_bad);

extern const char vsockd_args_help[];
