#include "guest-cpus.h"

#include "cleanup.h"
#include "fd.h"
#include "guest-uevent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CPUS_PREFIX "add@/devices/system/cpu/cpu"
#define CPUS_MAX    8192 /* of Linux on x86-64 */

int guest_cpus_added(const char *event, size_t len)
{
	size_t n = sizeof CPUS_PREFIX - 1;
	int cpu = 0;

	if (len <= n || memcmp(event, CPUS_PREFIX, n) != 0 || event[n] == 0)
		return -1;
	for (; n < len && event[n]; n++) {
		if (event[n] < '0' || event[n] > '9' || cpu >= CPUS_MAX)
			return -1;
		cpu = cpu * 10 + event[n] - '0';
	}
	return n < len ? cpu : -1;
}

/* One that does not come online stays away: the guest's log says why. */
static void cpus_put_online(int cpu)
{
	char path[64];
	CLEANUP_CLOSE int fd = -EBADF;

	snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/online", cpu);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, "1", 1);
}

static void cpus_on_event(struct guest_source *s, uint32_t events)
{
	struct guest_cpus *c = GUEST_CONTAINER(s, struct guest_cpus, source);
	char event[4096];
	ssize_t n;

	while ((n = recv(c->fd, event, sizeof event, MSG_DONTWAIT)) > 0) {
		int cpu = guest_cpus_added(event, (size_t)n);

		if (cpu >= 0)
			cpus_put_online(cpu);
	}
}

int guest_cpus_init(struct guest_cpus *c, struct guest_loop *l)
{
	c->fd = guest_uevent_open();
	if (c->fd < 0)
		return c->fd;
	guest_source_init(&c->source, l, c->fd, cpus_on_event);
	guest_source_set(&c->source, EPOLLIN);
	return 0;
}

void guest_cpus_finish(struct guest_cpus *c)
{
	if (c->fd < 0)
		return;
	guest_source_stop(&c->source);
	c->fd = fd_close(c->fd);
}
