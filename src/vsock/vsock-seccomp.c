/*
 * Theory of operation. After start-up the process needs only its descriptors. What could reach
 * further is narrowed by its arguments: no socket but AF_UNIX streams, no mapping that can be
 * executed, fcntl() only to look at and set flags. There is no open(), so the file system is
 * reached by connect() to a socket in the working directory alone; no execve(), no clone().
 */
#include "vsock-seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "cleanup.h"

DEFINE_CLEANUP(scmp_filter_ctx, seccomp_release);

/* As they are, with any arguments. */
static const int vsock_calls[] = {
	SCMP_SYS(accept4),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(close),
	SCMP_SYS(connect),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(madvise),
	SCMP_SYS(munmap),
	SCMP_SYS(pread64),
	SCMP_SYS(read),
	SCMP_SYS(readv),
	SCMP_SYS(recvfrom),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(shutdown),
	SCMP_SYS(write),
};

static const struct {
	int call;
	struct scmp_arg_cmp cmp;
} vsock_narrow_calls[] = {
	{ SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_GETFL, 0 } },
	{ SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_SETFL, 0 } },
	{ SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_GET_SEALS, 0 } },
	{ SCMP_SYS(mmap), { 2, SCMP_CMP_EQ, PROT_READ | PROT_WRITE, 0 } },
	{ SCMP_SYS(socket), { 0, SCMP_CMP_EQ, AF_UNIX, 0 } },
};

int vsock_seccomp_load(void)
{
	CLEANUP(seccomp_releasep) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!ctx)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_SIZE(vsock_calls); i++) {
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, vsock_calls[i], 0);
		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < ARRAY_SIZE(vsock_narrow_calls); i++) {
		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, vsock_narrow_calls[i].call, 1,
			&vsock_narrow_calls[i].cmp);
		if (r < 0)
			return r;
	}
	return seccomp_load(ctx);
}
