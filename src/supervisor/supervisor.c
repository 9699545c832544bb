/* uvms-supervisor NAME: the main process of one VM. uvms-supervisor(8). */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "config.h"
#include "control-server.h"
#include "fd.h"
#include "log.h"
#include "parse.h"
#include "str.h"
#include "sv-actions.h"
#include "sv-attach.h"
#include "sv-broker.h"
#include "sv-children.h"
#include "sv-control.h"
#include "sv-copy.h"
#include "sv-events.h"
#include "sv-handover.h"
#include "sv-plan.h"
#include "sv-refresh.h"
#include "sv-saved.h"
#include "sv-share.h"
#include "sv-tap.h"
#include "sv-update.h"
#include "sv-virtiofsd.h"
#include "sv-vsockd.h"
#include "sv-watch.h"
#include "sv.h"
#include "vm-name.h"
#include "vmm-table.h"

static int arg_client_fd = -EBADF, arg_resume_fd = -EBADF, arg_check_fd = -EBADF;
static const char *arg_restore, *arg_share, *arg_share_at;
static uint32_t arg_copy_fds;
static bool arg_print_plan, arg_owned;
static bool update_wanted;

static int on_signal(sd_event_source *s, const struct signalfd_siginfo *si, void *userdata)
{
	sv_happen(userdata, SV_STOP, si->ssi_signo == SIGTERM ? "SIGTERM" : "SIGINT");
	return 0;
}

static void sv_init(struct sv *sv)
{
	*sv = (struct sv){ .vm_fd = -EBADF,
		.runtime = { -EBADF, -EBADF },
		.dir_fd = -EBADF,
		.trace_fd = -EBADF,
		.vmm_control_fd = -EBADF,
		.vmm_events_fd = -EBADF,
		.vmm_tty_fds = { -EBADF, -EBADF },
		.vsock_fd = -EBADF,
		.net_fd = -EBADF,
		.life_fd = -EBADF,
		.restore_fd = -EBADF,
		.client_fd = arg_client_fd,
		.owned = arg_owned,
		.restore = arg_restore,
		.lingering = SV_HAPPENINGS,
		.events = { .interval_usec = SV_EVENTS_WINDOW_USEC, .burst = SV_EVENTS_MAX },
		.refused = { .interval_usec = SV_BROKER_WINDOW_USEC, .burst = 5 } };
	for (size_t i = 0; i < SV_FDS_MAX; i++)
		sv->vmm_fds[i] = -EBADF;
	sv_child_init(&sv->vmm_child, sv, "vmm", SV_VMM_GONE);
	sv_vsockd_init(sv);
	sv_handover_init(sv);
	sv_child_init(&sv->namespace_child, sv, "namespace", SV_NAMESPACE_GONE);
	sv_child_init(&sv->net_child, sv, "passt", SV_NETWORK_GONE);
	sv_tap_init(sv);
	sv_broker_init(sv);
	sv_attach_init(sv);
	sv_share_init(sv);
	sv_snapshot_init(sv);
}

static int sv_open_store(struct sv *sv)
{
	CLEANUP_CLOSE int state = open(sv->dirs.state, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return state < 0 ? -errno : store_open(state, &sv->store);
}

static void sv_finish(struct sv *sv)
{
	control_server_destroy(sv->control);
	sd_event_source_disable_unref(sv->deadline);
	sd_event_source_disable_unref(sv->linger);
	sd_event_source_disable_unref(sv->finish);
	vm_plan_finish(&sv->plan);
	vm_spec_finish(&sv->spec);
	vm_status_finish(&sv->status);
	store_image_finish(&sv->image);
	store_kernel_finish(&sv->kernel);
	store_close(sv->store);
	vm_dirs_finish(&sv->dirs);
	free(sv->failure);
	free(sv->failure_next);
	free(sv->restore_path);
	fd_close(sv->restore_fd);
	fd_close(sv->vm_fd);
	fd_close(sv->dir_fd);
	fd_close(sv->trace_fd);
	fd_close(sv->client_fd);
	sd_event_unref(sv->event);
	explicit_bzero(sv->secret, sizeof sv->secret);
}

static int print_plan(struct sv *sv, const char *name)
{
	CLEANUP_FREE char *reason = NULL, *next = NULL;
	int r;

	sv->vm_fd = vm_dirs_open_vm(&sv->dirs, name, false);
	r = sv->vm_fd < 0 ? sv->vm_fd : vm_spec_read(sv->vm_fd, &sv->spec, &reason);
	if (r == 0)
		r = sv_plan_build(sv, &reason, &next);
	for (size_t i = 0; r == 0 && i < sv->plan.n_steps; i++) {
		CLEANUP_FREE char *line = vm_step_print(&sv->plan.steps[i]);

		puts(str_or(line, "?"));
	}
	if (r < 0)
		log_error("%s: %s%s%s", name, reason ? reason : strerror(-r),
			next ? "\n  next: " : "", str_or(next, ""));
	return r;
}

static int sv_prepare(struct sv *sv, const char *name)
{
	sigset_t mask;
	int r;

	if (getrandom(sv->secret, sizeof sv->secret, 0) != sizeof sv->secret)
		return -EIO;
	sigemptyset(&mask);
	sigaddset(&mask, SIGTERM);
	sigaddset(&mask, SIGINT);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, NULL);
	signal(SIGPIPE, SIG_IGN);
	r = str_set(&sv->status.name, name);
	if (r >= 0)
		r = sd_event_new(&sv->event);
	if (r >= 0)
		r = sd_event_add_signal(sv->event, NULL, SIGTERM, on_signal, sv);
	if (r >= 0)
		r = sd_event_add_signal(sv->event, NULL, SIGINT, on_signal, sv);
	if (r >= 0)
		r = sv_watch_begin(sv);
	return r < 0 ? r : sv_control_create(sv);
}

static int loop(struct sv *sv)
{
	int r = sd_event_loop(sv->event);

	update_wanted = sv->update;
	return r;
}

static int run(const char *name)
{
	CLEANUP(sv_finish) struct sv sv;
	const char *reason;
	int r;

	sv_init(&sv);
	if (vm_name_check(name, &reason) < 0) {
		log_error("the name cannot be used: %s", reason);
		return -EINVAL;
	}
	r = vm_dirs_init(&sv.dirs);
	if (r == 0)
		r = sv_open_store(&sv);
	if (r < 0) {
		log_error("%s: the state and runtime directories cannot be used: %s", name,
			strerror(-r));
		return r;
	}
	if (arg_print_plan)
		return print_plan(&sv, name);
	r = sv_prepare(&sv, name);
	if (r < 0)
		return r;
	r = sv_actions_start(&sv);
	return r < 0 ? r : loop(&sv);
}

/* The next image of a process that was another version until now: sv-refresh.h. */
static int resume(int memfd, const char *name)
{
	CLEANUP(sv_finish) struct sv sv;
	CLEANUP_FREE char *reason = NULL;
	struct sv_saved *saved = NULL;
	int r;

	sv_refresh_arrive();
	sv_init(&sv);
	r = sv_saved_read(memfd, true, &saved, &reason);
	fd_close(memfd);
	if (r == 0)
		r = sv_prepare(&sv, name);
	if (r >= 0)
		r = sv_refresh_resume(&sv, saved);
	sv_saved_free(saved);
	if (r >= 0)
		return loop(&sv);
	log_error("%s: what the former supervisor has left cannot be gone on with: %s", name,
		reason ? reason : strerror(-r));
	return r;
}

/* For a supervisor that wants to know before it is replaced. */
static int check_resume(int memfd, const char *name)
{
	CLEANUP_FREE char *reason = NULL;
	struct sv_saved *saved = NULL;
	int r;

	sv_refresh_arrive();
	r = sv_saved_read(memfd, false, &saved, &reason);
	sv_saved_free(saved);
	if (r < 0)
		log_error("%s: not understood: %s", name, reason ? reason : strerror(-r));
	return r;
}

/* With whatever is to be executed next. */
static int end(const char *name, int result)
{
	int r = update_wanted ? sv_update_exec(name) : 0;

	if (r < 0)
		log_error("%s: it cannot be started again: %s", name, strerror(-r));
	return result == 0 && r == 0 ? 0 : 1;
}

static int usage(void)
{
	fprintf(stderr,
		"usage: uvms-supervisor [--client-fd N [--owned]] [--restore SNAPSHOT] "
		"[--print-plan] NAME\n"
		"       uvms-supervisor --resume-fd N | --check-resume-fd N NAME\n"
		"       uvms-supervisor --copy-fds N NAME\n"
		"       uvms-supervisor --share KIND:PROGRAM --share-at PLACE NAME\n"
		"       uvms-supervisor --print-lifecycle | --print-backends | --version\n");
	return 2;
}

/* The descriptor in optarg, for OPTION. */
static int take_fd(int option)
{
	int *to = option == 'c' ? &arg_client_fd : option == 'r' ? &arg_resume_fd : &arg_check_fd;
	uint32_t fd;

	if (parse_u32(optarg, 1 << 20, &fd) < 0 || fd < 3)
		return -EINVAL;
	*to = (int)fd;
	return fd_set_cloexec(*to, 1);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "client-fd", required_argument, NULL, 'c' },
		{ "owned", no_argument, NULL, 'o' },
		{ "restore", required_argument, NULL, 's' },
		{ "print-plan", no_argument, NULL, 'p' },
		{ "print-lifecycle", no_argument, NULL, 'l' },
		{ "print-backends", no_argument, NULL, 'b' },
		{ "resume-fd", required_argument, NULL, 'r' },
		{ "check-resume-fd", required_argument, NULL, 'k' },
		{ "copy-fds", required_argument, NULL, 'f' },
		{ "share", required_argument, NULL, 'd' },
		{ "share-at", required_argument, NULL, 'a' },
		{ "version", no_argument, NULL, 'v' },
		{ 0 },
	};
	int c;

	log_open("uvms-supervisor");
	/* large buffers of connections: what is not used of them is not there, and goes when they go */
	mallopt(M_MMAP_THRESHOLD, 32 * 1024);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'c':
		case 'r':
		case 'k':
			if (take_fd(c) < 0)
				return usage();
			break;
		case 'f':
			if (parse_u32(optarg, VM_VOLUMES_MAX, &arg_copy_fds) < 0)
				return usage();
			break;
		case 'd': arg_share = optarg; break;
		case 'a': arg_share_at = optarg; break;
		case 'o': arg_owned = true; break;
		case 's': arg_restore = optarg; break;
		case 'p': arg_print_plan = true; break;
		case 'l': sv_fsm_print(); return 0;
		case 'b': vmm_table_print(); return 0;
		case 'v': puts(UVMS_VERSION); return 0;
		default: return usage();
		}
	}
	if (optind + 1 != argc)
		return usage();
	if (arg_resume_fd >= 0)
		return end(argv[optind], resume(arg_resume_fd, argv[optind]));
	if (arg_copy_fds > 0)
		return sv_copy_run(arg_copy_fds) == 0 ? 0 : 1;
	if (arg_share)
		return sv_virtiofsd_become(arg_share, arg_share_at) == 0 ? 0 : 1;
	if (arg_check_fd >= 0)
		return check_resume(arg_check_fd, argv[optind]) == 0 ? 0 : 1;
	return end(argv[optind], run(argv[optind]));
}
