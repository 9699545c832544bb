#include "vsockd-args.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

#include "cleanup.h"
#include "parse.h"
#include "str.h"

const char vsockd_args_help[] =
	"uvms-vsockd --name NAME --cid N --vhost-fd N --listen-fd N --path PATH\n"
	"            [--table-fd N] [--keeper-fd N --state-fd N [--from-fd N]] [--may-shrink]\n"
	"\n"
	"The vsock device of one virtual machine; started by uvms-supervisor.\n"
	"\n"
	"  --name NAME      the machine, for log lines\n"
	"  --cid N          the guest's CID, 3 or more\n"
	"  --vhost-fd N     connected vhost-user socket\n"
	"  --listen-fd N    listening UNIX socket for CONNECT\n"
	"  --path PATH      its name; a guest that calls port P reaches PATH_P\n"
	"  --table-fd N     memfd for the table of live connections\n"
	"  --keeper-fd N    channel to whoever keeps what a successor needs\n"
	"  --state-fd N     memfd for the state of the vhost-user session\n"
	"  --from-fd N      channel to the process in service, which hands over\n"
	"  --may-shrink     take memory that the VMM can cut off (it has not sealed it)\n"
	"  --no-seccomp     no system call filter (tests only)\n"
	"  --help, --version\n";

enum vsockd_arg_kind { ARG_FLAG, ARG_TEXT, ARG_FD, ARG_CID };

static const struct {
	const char *name;
	enum vsockd_arg_kind kind;
	size_t offset;
} vsockd_arg_table[] = {
	{ "--name", ARG_TEXT, offsetof(struct vsockd_args, name) },
	{ "--cid", ARG_CID, offsetof(struct vsockd_args, cid) },
	{ "--vhost-fd", ARG_FD, offsetof(struct vsockd_args, vhost_fd) },
	{ "--listen-fd", ARG_FD, offsetof(struct vsockd_args, listen_fd) },
	{ "--path", ARG_TEXT, offsetof(struct vsockd_args, path) },
	{ "--table-fd", ARG_FD, offsetof(struct vsockd_args, table_fd) },
	{ "--keeper-fd", ARG_FD, offsetof(struct vsockd_args, keeper_fd) },
	{ "--state-fd", ARG_FD, offsetof(struct vsockd_args, state_fd) },
	{ "--from-fd", ARG_FD, offsetof(struct vsockd_args, from_fd) },
	{ "--may-shrink", ARG_FLAG, offsetof(struct vsockd_args, may_shrink) },
	{ "--no-seccomp", ARG_FLAG, offsetof(struct vsockd_args, no_seccomp) },
	{ "--help", ARG_FLAG, offsetof(struct vsockd_args, help) },
	{ "--version", ARG_FLAG, offsetof(struct vsockd_args, version) },
};

static int vsockd_arg_set(struct vsockd_args *a, size_t i, const char *value)
{
	void *to = (char *)a + vsockd_arg_table[i].offset;
	uint64_t n;

	switch (vsockd_arg_table[i].kind) {
	case ARG_FLAG: *(bool *)to = true; return 0;
	case ARG_TEXT: *(const char **)to = value; return *value ? 0 : -EINVAL;
	case ARG_FD:
		if (parse_u64(value, INT_MAX, &n) < 0 || n < 3)
			return -EINVAL;
		*(int *)to = (int)n;
		return 0;
	case ARG_CID:
		if (parse_u64(value, UINT32_MAX - 1, &n) < 0 || n < 3)
			return -EINVAL;
		*(uint64_t *)to = n;
		return 0;
	}
	return -EINVAL;
}

/* What is missing, or NULL. */
static const char *vsockd_args_missing(const struct vsockd_args *a)
{
	if (a->help || a->version)
		return NULL;
	if (!a->cid)
		return "--cid";
	if (a->vhost_fd < 0)
		return "--vhost-fd";
	if (a->listen_fd < 0)
		return "--listen-fd";
	if (!a->path)
		return "--path";
	if ((a->keeper_fd < 0) != (a->state_fd < 0))
		return a->keeper_fd < 0 ? "--keeper-fd" : "--state-fd";
	if (a->from_fd >= 0 && a->keeper_fd < 0)
		return "--keeper-fd";
	return a->name ? NULL : "--name";
}

int vsockd_args_parse(int argc, char **argv, struct vsockd_args *ret, const char **ret_bad)
{
	struct vsockd_args a = { .vhost_fd = -EBADF,
		.listen_fd = -EBADF,
		.table_fd = -EBADF,
		.keeper_fd = -EBADF,
		.state_fd = -EBADF,
		.from_fd = -EBADF };

	for (int i = 1; i < argc; i++) {
		bool known = false;

		*ret_bad = argv[i];
		for (size_t k = 0; k < ARRAY_SIZE(vsockd_arg_table) && !known; k++) {
			if (!str_eq(argv[i], vsockd_arg_table[k].name))
				continue;
			known = true;
			if (vsockd_arg_table[k].kind != ARG_FLAG && ++i >= argc)
				return -EINVAL;
			if (vsockd_arg_set(&a, k, argv[i]) < 0)
				return -EINVAL;
		}
		if (!known)
			return -EINVAL;
	}
	*ret_bad = vsockd_args_missing(&a);
	if (*ret_bad)
		return -EINVAL;
	*ret = a;
	return 0;
}
