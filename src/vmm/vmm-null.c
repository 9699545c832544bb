/*
 * A back-end without a guest, for tests: the program uvms-vmm-null plays events from a script
 * ($UVMS_NULL_SCRIPT) as lines on the control socket and obeys "power-button" and "quit" lines.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "str.h"
#include "vmm-impl.h"

struct vmm_null {
	sd_event_source *io, *done; /* owned */
	int fd;                     /* owned */
	size_t len;
	char line[256];
};

static void null_on_line(struct vmm *v, char *line)
{
	static const char *const names[] = {
		[VMM_EVENT_UP] = "up",
		[VMM_EVENT_RESET] = "reset",
		[VMM_EVENT_POWERDOWN] = "powerdown",
		[VMM_EVENT_SHUTDOWN] = "shutdown",
		[VMM_EVENT_PANICKED] = "panicked",
		[VMM_EVENT_CLOSED] = "closed",
		[VMM_EVENT_FAULT] = "fault",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		if (str_eq(names[i], line))
			vmm_emit(v, (enum vmm_event)i, "scripted");
	}
}

static void null_end(struct vmm *v, enum vmm_event event, const char *what)
{
	struct vmm_null *n = v->impl;

	sd_event_source_set_enabled(n->io, SD_EVENT_OFF);
	vmm_emit(v, event, what);
}

static int null_on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct vmm *v = userdata;
	struct vmm_null *n = v->impl;
	ssize_t got = read(fd, n->line + n->len, sizeof n->line - n->len);
	char *end;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0) {
		null_end(v, VMM_EVENT_CLOSED, "it closed its control socket");
		return 0;
	}
	n->len += (size_t)got;
	while ((end = memchr(n->line, '\n', n->len))) {
		*end = 0;
		null_on_line(v, n->line);
		n->len -= (size_t)(end + 1 - n->line);
		memmove(n->line, end + 1, n->len);
	}
	if (n->len == sizeof n->line)
		null_end(v, VMM_EVENT_FAULT, "a line longer than 256 bytes");
	return 0;
}

static void null_detach(struct vmm *v)
{
	struct vmm_null *n = v->impl;

	if (!n)
		return;
	sd_event_source_disable_unref(n->io);
	sd_event_source_disable_unref(n->done);
	fd_close(n->fd);
	free(n);
}

static int null_attach_fd_consume(struct vmm *v, int control_fd)
{
	struct vmm_null *n = calloc(1, sizeof *n);
	int r;

	if (!n) {
		close(control_fd);
		return -ENOMEM;
	}
	n->fd = control_fd;
	v->impl = n;
	r = sd_event_add_io(v->event, &n->io, control_fd, EPOLLIN, null_on_io, v);
	if (r < 0)
		null_detach(v);
	return r;
}

static int null_attach_consume(
	struct vmm *v, const struct vmm_channels *c, const char *const *calls)
{
	fd_close(c->events_fd);
	fd_close(c->net_fd);
	fd_close(c->restore_fd);
	return null_attach_fd_consume(v, c->control_fd);
}

static int null_save(const struct vmm *v, struct vmm_saved *ret)
{
	struct vmm_null *n = v->impl;
	int enabled;

	if (sd_event_source_get_enabled(n->io, &enabled) < 0 || enabled == SD_EVENT_OFF)
		return -EBUSY;
	*ret = (struct vmm_saved){ n->fd, -EBADF, n->line, n->len };
	return 0;
}

static int null_restore_consume(struct vmm *v, const struct vmm_saved *s)
{
	struct vmm_null *n;
	int r;

	if (s->pending_len >= sizeof n->line) {
		close(s->fd);
		return -EINVAL;
	}
	r = null_attach_fd_consume(v, s->fd);
	if (r < 0)
		return r;
	n = v->impl;
	memcpy(n->line, s->pending, s->pending_len);
	n->len = s->pending_len;
	return 0;
}

static int null_say(struct vmm *v, const char *line)
{
	struct vmm_null *n = v->impl;
	ssize_t r = send(n->fd, line, strlen(line), MSG_NOSIGNAL | MSG_DONTWAIT);

	return r < 0 ? -errno : 0;
}

static int null_power_button(struct vmm *v)
{
	return null_say(v, "power-button\n");
}

static int null_quit(struct vmm *v)
{
	return null_say(v, "quit\n");
}

/* Done as soon as it is said. */
static int null_on_done(sd_event_source *s, void *userdata)
{
	vmm_op_end(userdata, 0, NULL);
	return 0;
}

static int null_operate(struct vmm *v, const struct vmm_op *op)
{
	static const char *const lines[] = {
		[VMM_OP_PAUSE] = "pause",
		[VMM_OP_RESUME] = "resume",
		[VMM_OP_MEMORY] = "memory",
		[VMM_OP_CPUS] = "cpus",
		[VMM_OP_ADD_DISK] = "add-disk",
		[VMM_OP_ADD_PMEM] = "add-pmem",
		[VMM_OP_ADD_FS] = "add-fs",
		[VMM_OP_REMOVE] = "remove",
		[VMM_OP_SNAPSHOT] = "snapshot",
		[VMM_OP_VSOCK_OUT] = "vsock-out",
		[VMM_OP_VSOCK_IN] = "vsock-in",
	};

	static_assert(ARRAY_SIZE(lines) == VMM_OPS, "every operation has a line");
	struct vmm_null *n = v->impl;
	CLEANUP_FREE char *line =
		str_printf("%s %s\n", lines[op->kind], op->kind == VMM_OP_SNAPSHOT ? op->path : "");
	int r = line ? null_say(v, line) : -ENOMEM;

	if (r < 0)
		return r;
	n->done = sd_event_source_disable_unref(n->done);
	return sd_event_add_defer(v->event, &n->done, null_on_done, v);
}

static int null_arguments(const struct vmm_config *c, char ***argv)
{
	return strv_pushf(argv, "%d", VMM_FD_CONTROL);
}

const struct vmm_backend vmm_backend_null = {
	.name = "null",
	.caps = VMM_CAP_POWER_BUTTON | VMM_CAP_VSOCK_DEVICE | VMM_CAP_TCG | VMM_CAP_REBOOT_ENDS |
		VMM_CAP_PAUSE | VMM_CAP_MEMORY | VMM_CAP_CPUS | VMM_CAP_DISKS | VMM_CAP_SNAPSHOT |
		VMM_CAP_VSOCK_OUT | VMM_CAP_PMEM_LIVE | VMM_CAP_FS_LIVE,
	.program = "uvms-vmm-null",
	.program_env = "UVMS_VMM_NULL",
	.arguments = null_arguments,
	.attach_consume = null_attach_consume,
	.power_button = null_power_button,
	.quit = null_quit,
	.operate = null_operate,
	.save = null_save,
	.restore_consume = null_restore_consume,
	.detach = null_detach,
};
