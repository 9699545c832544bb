/* uvms-vsockd: see uvms-vsockd(8). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "config.h"
#include "log.h"
#include "sandbox.h"
#include "vsock-seccomp.h"
#include "vsock-service.h"

static struct vsock_service service;

/*
 * Memory that its owner may cut off was touched behind its end. There is nothing to go on with: the VM's session is over,
 * and that is all that it can cost.
 */
static void vsockd_on_sigbus(int signo)
{
	static const char text[] =
		"uvms-vsockd: the VMM has cut off the guest's memory under its device\n";

	(void)!write(STDERR_FILENO, text, sizeof text - 1);
	_exit(VSOCK_SERVICE_LOST);
}

static int vsockd_confine(void)
{
	int r = sandbox_drop_privileges();

	if (r < 0)
		return r;
	if (sandbox_want_fds(VSOCK_SERVICE_FDS) < 0)
		log_warning("the limit of open files allows fewer than %d connections",
			VSOCK_CONNS_MAX);
	return 0;
}

static int vsockd_run(const struct vsockd_args *a)
{
	uint64_t seed;
	int r;

	if (getrandom(&seed, sizeof seed, 0) != sizeof seed)
		return -EIO;
	signal(SIGPIPE, SIG_IGN);
	if (a->may_shrink)
		signal(SIGBUS, vsockd_on_sigbus);
	r = vsockd_confine();
	if (r < 0)
		return r;
	r = vsock_service_start(&service, a, seed);
	if (r < 0)
		return r;
	/* nothing that anybody sent has been looked at yet */
	if (a->no_seccomp || UVMS_SANITIZED) /* a sanitizer makes calls of its own */
		log_warning("%s: no system call filter", a->name);
	else
		r = vsock_seccomp_load();
	if (r == 0)
		r = vsock_service_take_over(&service);
	if (r != 0)
		return r;
	log_info("%s: vsock device ready, cid %llu", a->name, (unsigned long long)a->cid);
	r = vsock_service_run(&service);
	log_info("%s: vsock device ends", a->name);
	vsock_service_finish(&service);
	return r;
}

int main(int argc, char **argv)
{
	struct vsockd_args a;
	const char *bad;
	int r;

	log_open("uvms-vsockd");
	if (vsockd_args_parse(argc, argv, &a, &bad) < 0) {
		log_error("wrong or missing argument: %s", bad);
		return 2;
	}
	if (a.help || a.version) {
		fputs(a.help ? vsockd_args_help : "uvms-vsockd " UVMS_VERSION "\n", stdout);
		return 0;
	}
	r = vsockd_run(&a);
	if (r < 0)
		log_error("%s: cannot serve: %s", a.name, strerror(-r));
	return r < 0 ? 1 : r;
}
