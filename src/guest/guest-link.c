#include "guest-link.h"

#include "agent-wire.h"
#include "fd.h"
#include "guest-net.h"
#include "guest-stop.h"
#include "guest-uevent.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static void link_end(struct guest_link *l, int error)
{
	guest_link_finish(l);
	l->done(l->user, error);
}

/* True: it was there, and is over. */
static bool link_try(struct guest_link *l)
{
	const char *step;
	int r = guest_net_configure(&l->network, &step);

	if (r == -ENODEV)
		return false;
	if (r < 0)
		guest_stop_warn("network: %s: %s", step, strerror(-r));
	link_end(l, -r);
	return true;
}

static void link_on_event(struct guest_source *s, uint32_t events)
{
	struct guest_link *l = GUEST_CONTAINER(s, struct guest_link, events);
	char event[4096];

	while (recv(l->fd, event, sizeof event, MSG_DONTWAIT) > 0)
		;
	(void)link_try(l);
}

static void link_on_timer(struct guest_timer *t)
{
	link_end(GUEST_CONTAINER(t, struct guest_link, timer), ETIMEDOUT);
}

void guest_link_set_up(struct guest_link *l, const struct boot_desc_network *network)
{
	if (l->fd >= 0)
		link_end(l, ECANCELED);
	l->network = *network;
	l->fd = guest_uevent_open(); /* before the first look: nothing is missed between */
	if (l->fd < 0) {
		l->done(l->user, -l->fd);
		return;
	}
	guest_source_init(&l->events, l->loop, l->fd, link_on_event);
	guest_source_set(&l->events, EPOLLIN);
	guest_timer_arm(&l->timer, l->loop, AGENT_WIRE_LINK_MS, link_on_timer);
	(void)link_try(l);
}

void guest_link_finish(struct guest_link *l)
{
	if (l->fd < 0)
		return;
	guest_timer_stop(&l->timer);
	guest_source_stop(&l->events);
	l->fd = fd_close(l->fd);
}
