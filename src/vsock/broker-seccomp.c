#include "broker-seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/mman.h>

#include "cleanup.h"

DEFINE_CLEANUP(scmp_filter_ctx, seccomp_release);

/* It has descriptors from others alone, and opens and calls nothing itself. */
static const int broker_calls[] = {
	SCMP_SYS(accept4),
	SCMP_SYS(brk),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(close),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(madvise),
	SCMP_SYS(munmap),
	SCMP_SYS(pipe2),
	SCMP_SYS(read),
	SCMP_SYS(recvmsg),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sendto),
	SCMP_SYS(shutdown),
	SCMP_SYS(splice),
	SCMP_SYS(write),
	SCMP_SYS(writev),
};

static const struct {
	int call;
	struct scmp_arg_cmp cmp;
} broker_narrow_calls[] = {
	{ SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_GETFL, 0 } },
	{ SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_SETFL, 0 } },
	{ SCMP_SYS(fcntl), { 1, SCMP_CMP_EQ, F_SETPIPE_SZ, 0 } },
	{ SCMP_SYS(mmap), { 2, SCMP_CMP_EQ, PROT_READ | PROT_WRITE, 0 } },
};

int broker_seccomp_load(void)
{
	CLEANUP(seccomp_releasep) scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r = ctx ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(broker_calls); i++)
		r = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, broker_calls[i], 0);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(broker_narrow_calls); i++)
		r = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, broker_narrow_calls[i].call, 1,
			&broker_narrow_calls[i].cmp);
	return r < 0 ? r : seccomp_load(ctx);
}
