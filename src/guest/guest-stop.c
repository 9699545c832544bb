#include "guest-stop.h"

#include "agent-wire.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/reboot.h>
#include <unistd.h>

bool guest_stop_has_systemd(void)
{
	return access("/run/systemd/system", F_OK) == 0;
}

int guest_stop_ask_init(uint8_t mode)
{
	int systemd[] = { [AGENT_STOP_POWEROFF] = SIGRTMIN + 4,
		[AGENT_STOP_REBOOT] = SIGRTMIN + 5,
		[AGENT_STOP_HALT] = SIGRTMIN + 3 };
	static const int busybox[] = { [AGENT_STOP_POWEROFF] = SIGUSR2,
		[AGENT_STOP_REBOOT] = SIGTERM,
		[AGENT_STOP_HALT] = SIGUSR1 };
	int signo = guest_stop_has_systemd() ? systemd[mode] : busybox[mode];

	return kill(1, signo) < 0 ? -errno : 0;
}

void guest_stop_now(uint8_t mode)
{
	static const int how[] = { [AGENT_STOP_POWEROFF] = RB_POWER_OFF,
		[AGENT_STOP_REBOOT] = RB_AUTOBOOT,
		[AGENT_STOP_HALT] = RB_HALT_SYSTEM };

	if (getpid() != 1)
		exit(EXIT_SUCCESS);
	kill(-1, SIGKILL);
	sync();
	reboot(how[mode]);
	for (;;) /* PID 1 must not return: that is a kernel panic */
		pause();
}

__attribute__((format(printf, 2, 0))) static void say(
	const char *kind, const char *format, va_list ap)
{
	char text[512];

	vsnprintf(text, sizeof text, format, ap);
	fprintf(stderr, "uvms: %s: %s\n", kind, text);
}

void guest_stop_warn(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say("warning", format, ap);
	va_end(ap);
}

void guest_stop_fatal(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	say("fatal", format, ap);
	va_end(ap);
	if (getpid() != 1)
		exit(EXIT_FAILURE);
	guest_stop_now(AGENT_STOP_POWEROFF);
}
