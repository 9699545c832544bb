#include "guest-init.h"

#include "agent-wire.h"
#include "boot-desc.h"
#include "cleanup.h"
#include "file.h"
#include "guest-agent.h"
#include "guest-clock.h"
#include "guest-creds.h"
#include "guest-home.h"
#include "guest-module.h"
#include "guest-net.h"
#include "guest-place.h"
#include "guest-root.h"
#include "guest-stop.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#define CALL_MS 10000

/* Never freed: the views of the description point into it for PID 1's life. */
static void read_description(struct boot_desc *ret)
{
	char *bytes = NULL;
	size_t len = 0;
	int r;

	r = file_read_at(AT_FDCWD, BOOT_DESC_PATH, BOOT_DESC_MAX, &bytes, &len);
	if (r == 0)
		r = boot_desc_decode(bytes, len, ret);
	if (r < 0)
		guest_stop_fatal("boot description %s: %s", BOOT_DESC_PATH, strerror(-r));
	unlink(BOOT_DESC_PATH);
}

static void load_modules(const char *list)
{
	int r = guest_module_load_all(list, BOOT_DESC_MODULES_DIR);

	if (r < 0 && r != -ENOENT)
		guest_stop_warn("%s: %s", list, strerror(-r));
}

static void early(struct boot_desc *d)
{
	int r = guest_root_mount_kernel();

	if (r < 0)
		guest_stop_fatal("/dev, /proc, /sys: %s", strerror(-r));
	read_description(d);
	guest_clock_add_entropy(d->seed, sizeof d->seed);
	guest_clock_set(d->realtime_ns);
	load_modules(BOOT_DESC_MODULES_LIST);
	if (d->flags & BOOT_DESC_NETWORK)
		load_modules(BOOT_DESC_MODULES_NET);
	if (d->n_mounts > 0)
		load_modules(BOOT_DESC_MODULES_VOLS);
	guest_creds_keep();
}

/* Nobody waits for these; what may come later is the last of them. */
static const char *const *late_lists(const struct boot_desc *d)
{
	static const char *const lists[] = { BOOT_DESC_MODULES_LATE, NULL };
	static const char *const with_hotplug[] = { BOOT_DESC_MODULES_LATE, BOOT_DESC_MODULES_NET,
		BOOT_DESC_MODULES_PLUG, NULL };

	return d->flags & BOOT_DESC_HOTPLUG ? with_hotplug : lists;
}

static void enter_root(const struct boot_desc *d)
{
	CLEANUP_CLOSE int old_root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const char *step = "";
	int r;

	r = guest_root_build(d, &step);
	guest_module_load_late(late_lists(d), BOOT_DESC_MODULES_DIR);
	if (r == 0)
		r = guest_root_switch(d, &step);
	if (r == 0)
		r = guest_root_mount_volumes(d, &step);
	if (r < 0)
		guest_stop_fatal("cannot mount %s: %s", step, strerror(-r));
	r = guest_creds_place(old_root, d);
	if (r < 0)
		guest_stop_fatal("credentials: %s", strerror(-r));
}

static void configure_network(const struct boot_desc *d)
{
	const char *step = "";
	int r;

	guest_net_loopback();
	if (!(d->flags & BOOT_DESC_NETWORK))
		return;
	r = guest_net_configure(&d->network, &step);
	if (r == -ENODEV)
		guest_stop_fatal("network: no such interface; a kernel that was added by an older "
				 "uvms has no network driver here: uvms kernel add it again");
	if (r < 0)
		guest_stop_fatal("network: %s: %s", step, strerror(-r));
}

static void identity(const void *data)
{
	const struct boot_desc *d = data;

	configure_network(d);
	guest_root_identity(d);
}

static void run_command(const struct boot_desc *d)
{
	struct guest_proc_spec command = { .user = d->user,
		.workdir = d->workdir,
		.argv = d->argv,
		.env = d->env,
		.main = true,
		.console = true };
	struct guest_agent_config config = { .mode = GUEST_AGENT_COMMAND,
		.secret = d->secret,
		.command = d->argv.n > 0 ? &command : NULL,
		.while_calling = identity,
		.while_calling_data = d };
	int r;

	guest_proc_set_environment(&d->env);
	r = guest_transport_wait(&config.transport, CALL_MS);
	if (r == 0)
		r = guest_agent_run(&config);
	if (r < 0)
		guest_stop_fatal("agent: %s", strerror(-r));
	guest_stop_now(r > 0 ? (uint8_t)r : AGENT_STOP_POWEROFF);
}

/* ---- hand-over ---- */

static const char *find_init(const struct boot_desc *d, char *named)
{
	static const char *const usual[] = { "/sbin/init", "/lib/systemd/systemd", "/init",
		"/bin/init" };

	snprintf(named, PATH_MAX, "%.*s", (int)d->init.len, str_or(d->init.s, ""));
	if (named[0])
		return named;
	for (size_t i = 0; i < ARRAY_SIZE(usual); i++)
		if (access(usual[i], X_OK) == 0)
			return usual[i];
	guest_stop_fatal(
		"the image has no init: /sbin/init, /lib/systemd/systemd, /init, /bin/init");
}

/* The program itself, or a NixOS system's stage 2, which will execute it. */
static bool is_systemd(const char *init)
{
	char target[PATH_MAX], marker[PATH_MAX + 16];
	char *slash;

	if (!realpath(init, target))
		return false;
	if (strstr(target, "/systemd"))
		return true;
	slash = strrchr(target, '/');
	snprintf(marker, sizeof marker, "%.*s/nixos-version", (int)(slash - target), target);
	return access(marker, F_OK) == 0;
}

static void place(const struct boot_desc *d, int self_fd, const char *init)
{
	bool probe = d->flags & BOOT_DESC_READY_PROBE;
	int r;

	r = guest_place_agent(self_fd, d->secret);
	if (r == 0)
		r = is_systemd(init) ? guest_place_unit(probe) : guest_place_start(probe);
	if (r < 0)
		guest_stop_fatal("cannot place the agent in /run: %s", strerror(-r));
}

static void hand_over(const struct boot_desc *d, int self_fd)
{
	char named[PATH_MAX];
	const char *init = find_init(d, named);
	CLEANUP(strv_freep) char **env = NULL;
	char *argv[] = { (char *)(uintptr_t)init, NULL };
	struct wire_str s;
	int r;

	r = guest_home_call_init(&(struct guest_transport){}, d->secret, CALL_MS);
	if (r < 0)
		guest_stop_warn("call home: %s", strerror(-r));
	place(d, self_fd, init);
	strv_push(&env, "TERM=linux");
	if (guest_creds_directory())
		strv_pushf(&env, "CREDENTIALS_DIRECTORY=%s", guest_creds_directory());
	for (size_t pos = 0; wire_strv_next(&d->env, &pos, &s);)
		strv_pushf(&env, "%.*s", (int)s.len, s.s);
	execve(init, argv, env);
	guest_stop_fatal("cannot execute %s: %s", init, strerror(errno));
}

void guest_init_run(void)
{
	static struct boot_desc d;
	CLEANUP_CLOSE int self = open("/init", O_RDONLY | O_CLOEXEC); /* before it is unlinked */

	early(&d);
	enter_root(&d);
	if (d.mode == BOOT_DESC_COMMAND)
		run_command(&d);
	identity(&d);
	hand_over(&d, self);
	guest_stop_fatal("unreachable");
}
