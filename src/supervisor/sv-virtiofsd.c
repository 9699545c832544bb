#include "sv-virtiofsd.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "log.h"
#include "path.h"
#include "pidfd.h"
#include "sandbox.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-children.h"
#include "sv.h"

#define VIRTIOFSD_RESTARTS  5
#define VIRTIOFSD_CAPS      "-mknod:-setfcap"
#define VIRTIOFSD_FD        3
#define VIRTIOFSD_FD_OPTION "--fd=3"
#define VIRTIOFSD_DEPTH     4 /* processes, each the child of the one before */

static unsigned number(const struct sv *sv, const struct sv_share *s)
{
	return (unsigned)(s - sv->shares);
}

/* Where the helper finds it in its own mount namespace, and nobody else does. */
static char *place(const struct sv *sv, const struct sv_share *s)
{
	return str_printf("%s/%s/%s/share%u", sv->dirs.runtime, sv->spec.name,
		sv->status.incarnation, number(sv, s));
}

char *sv_virtiofsd_socket(const struct sv *sv, const struct sv_share *s)
{
	return str_printf("fs%u", number(sv, s));
}

/* For root it begins as root: it is about files of everybody. CWD_FD: -EBADF: the incarnation's directory. */
static int start(struct sv_child *c, const char *const *argv, int cwd_fd, const int *listen_fd)
{
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 } };
	struct spawn spawn = { SPAWN_DEFAULTS, .path = argv[0], .argv = argv, .fds = listen_fd,
		.n_fds = listen_fd ? 1 : 0, .limits = limits, .n_limits = ARRAY_SIZE(limits) };

	sv_child_confine(c, &spawn);
	spawn.uid = spawn.gid = (uid_t)-1;
	if (cwd_fd >= 0)
		spawn.cwd_fd = cwd_fd;
	return sv_child_start(c, &spawn);
}

int sv_virtiofsd_ask(struct sv_share *s)
{
	return start(&s->child, (const char *[]){ s->program, "--version", NULL }, -EBADF, NULL);
}

int sv_virtiofsd_told(struct sv_share *s, char **ret_cause, const char **ret_next)
{
	CLEANUP_FREE char *said = NULL;
	const char *fault;

	sv_child_catch_up(&s->child);
	said = sv_logfile_tail(&s->child.log, 4096);
	s->which = vm_virtiofsd_tell(str_or(said, ""));
	/* the next one begins a log of its own */
	sv_child_again(&s->child);
	sv_logfile_finish(&s->child.log);
	fault = vm_virtiofsd_fault(s->which, ret_next);
	if (!fault)
		return 0;
	*ret_cause = str_printf("%s: %s%s%.*s", s->program, fault, said && *said ? ": " : "",
		(int)strcspn(str_or(said, ""), "\n"), str_or(said, ""));
	return -EOPNOTSUPP;
}

static int spawn_it(struct sv *sv, struct sv_share *s, int listen_fd)
{
	CLEANUP_FREE char *program = NULL, *where = place(sv, s), *how = NULL;
	int r = path_find_helper("uvms-supervisor", &program);

	if (r == 0)
		how = str_printf("%s:%s", vm_virtiofsd_name(s->which), s->program);
	if (r < 0 || !where || !how)
		return r < 0 ? r : -ENOMEM;
	if (mkdir(where, 0700) < 0 && errno != EEXIST)
		return -errno;
	return start(&s->child,
		(const char *[]){
			program, "--share", how, "--share-at", where, sv->spec.name, NULL },
		s->fd, &listen_fd);
}

/* Blocking, as virtiofsd expects it. Only the VM's user may connect. */
static int listen_at(struct sv *sv, const char *name, bool dials)
{
	CLEANUP_CLOSE int fd = sockun_listen_at(sv->dir_fd, name, 0600, 1);
	int r = fd < 0 ? fd : fd_set_nonblock(fd, 0);

	if (r < 0)
		return r;
	if (dials && geteuid() == 0 &&
		fchownat(sv->dir_fd, name, sv->status.uid, sv->status.uid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return TAKE_FD(fd);
}

/*
 * Who waits in the queue of the socket is hung up on with its last descriptor: where we connect ourselves, that is
 * virtiofsd's, so that a VMM does not wait for one that ended before it accepted.
 */
int sv_virtiofsd_start(struct sv *sv, struct sv_share *s, int *ret_fd)
{
	bool dials = vmm_backend_caps(sv->backend) & VMM_CAP_VSOCK_DIALS;
	CLEANUP_FREE char *name = sv_virtiofsd_socket(sv, s);
	CLEANUP_CLOSE int listener = -EBADF, connected = -EBADF;
	int r = name ? 0 : -ENOMEM;

	if (r == 0)
		r = listener = listen_at(sv, name, dials);
	if (r >= 0 && !dials) {
		r = connected = sockun_connect_at(sv->dir_fd, name);
		(void)unlinkat(sv->dir_fd, name, 0);
	}
	if (r >= 0)
		r = spawn_it(sv, s, listener);
	if (r < 0)
		return r;
	if (dials)
		s->listen_fd = TAKE_FD(listener);
	*ret_fd = TAKE_FD(connected);
	return 0;
}

int sv_virtiofsd_again(struct sv *sv, struct sv_share *s)
{
	if (s->restarts++ >= VIRTIOFSD_RESTARTS)
		return -EAGAIN;
	sv_child_again(&s->child);
	return spawn_it(sv, s, s->listen_fd);
}

static void deafen(struct sv *sv, struct sv_share *s)
{
	CLEANUP_FREE char *name = s->listen_fd >= 0 ? sv_virtiofsd_socket(sv, s) : NULL;

	if (name)
		(void)unlinkat(sv->dir_fd, name, 0);
	s->callers = sd_event_source_disable_unref(s->callers);
	s->listen_fd = fd_close(s->listen_fd);
}

/* Whoever finds nobody there tries for a minute; who is hung up on goes on at once. */
static int on_caller(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	CLEANUP_CLOSE int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);

	return peer < 0 && errno != EAGAIN ? -errno : 0;
}

void sv_virtiofsd_hang_up(struct sv *sv, struct sv_share *s)
{
	if (s->listen_fd < 0 || s->callers)
		return;
	if (fd_set_nonblock(s->listen_fd, 1) < 0 ||
		sd_event_add_io(sv->event, &s->callers, s->listen_fd, EPOLLIN, on_caller, s) < 0)
		deafen(sv, s);
}

/* The first child of process PID, or -ENOENT. */
static int child_of(int pid)
{
	CLEANUP_FREE char *path = str_printf("/proc/%d/task/%d/children", pid, pid), *text = NULL;
	int child;

	if (!path || file_read_at(AT_FDCWD, path, 4096, &text, NULL) < 0 ||
		sscanf(text, "%d", &child) != 1)
		return -ENOENT;
	return child;
}

/* To CHILD of PARENT, which it is if it still is when there is a descriptor of it. */
static void signal_child(int parent, int child, int signo)
{
	CLEANUP_CLOSE int fd = pidfd_open_pid(child);

	if (fd >= 0 && child_of(parent) == child)
		(void)pidfd_signal(fd, signo);
}

/* Each makes another one in further namespaces, and waits for it; the last one serves. */
static void signal_inner(const struct sv_child *c, int signo)
{
	int parent = sv_child_is_running(c) ? c->pid : 0, child;

	for (int i = 0; i < VIRTIOFSD_DEPTH && parent > 0; i++, parent = child) {
		child = child_of(parent);
		if (child > 0)
			signal_child(parent, child, signo);
	}
}

/* Whether they are stopped or not: a stop that has not come yet is gone as well. */
void sv_virtiofsd_wake(const struct sv_child *c)
{
	signal_inner(c, SIGCONT);
}

void sv_virtiofsd_stop(struct sv *sv, struct sv_share *s)
{
	CLEANUP_FREE char *where = place(sv, s);

	/* the first process of a namespace: nothing of it is left then */
	signal_inner(&s->child, SIGKILL);
	sv_child_finish(&s->child);
	deafen(sv, s);
	if (where)
		(void)rmdir(where);
}

/* the helper */

/* Waits for what has become of us in a PID namespace, and ends as it did. */
static void wait_for(pid_t pid)
{
	int status;

	close(VIRTIOFSD_FD); /* its end is that of the socket */
	while (waitpid(pid, &status, 0) < 0) {
		if (errno != EINTR)
			_exit(1);
	}
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/*
 * As an ordinary user virtiofsd makes a user namespace of its own, for which it looks its child up in /proc: that of the
 * PID namespace in which they are. What is mounted there is another one's.
 */
static int enter_own_namespaces(void)
{
	int r = sandbox_enter_user_namespace(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID);
	pid_t pid = r < 0 ? 0 : fork();

	if (r < 0 || pid < 0)
		return r < 0 ? r : -errno;
	if (pid > 0)
		wait_for(pid);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
		mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
		return -errno;
	return mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0 ? -errno
											  : 0;
}

static int enter_namespaces(void)
{
	if (geteuid() != 0)
		return enter_own_namespaces();
	return unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0
		       ? -errno
		       : 0;
}

/* From the working directory, which has come along into the namespace: an open descriptor has not. */
static int mount_directory(const char *where)
{
	return mount(".", where, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir("/") < 0 ? -errno : 0;
}

/* QEMU's splits an option at commas. */
static int execute(enum vm_virtiofsd which, const char *where, const char *program)
{
	bool is_qemu = which == VM_VIRTIOFSD_QEMU;
	CLEANUP_FREE char *source = str_printf(is_qemu ? "source=%s" : "--shared-dir=%s", where);
	const char *const qemu[] = { "virtiofsd", VIRTIOFSD_FD_OPTION, "-f", "-o", source, "-o",
		"modcaps=" VIRTIOFSD_CAPS, NULL };
	const char *const rust[] = { "virtiofsd", VIRTIOFSD_FD_OPTION, source,
		"--modcaps=" VIRTIOFSD_CAPS, NULL };

	if (!source)
		return -ENOMEM;
	if (is_qemu && strchr(where, ','))
		return -EINVAL;
	execv(program, (char *const *)(is_qemu ? qemu : rust));
	return -errno;
}

int sv_virtiofsd_become(const char *how, const char *where)
{
	CLEANUP_FREE char *kind = strdup(how);
	const char *program = strchr(how, ':');
	int r;

	if (!kind || !program || !where)
		return -EINVAL;
	kind[program++ - how] = 0;
	r = enter_namespaces();
	if (r == 0)
		r = mount_directory(where);
	if (r == 0)
		r = execute(vm_virtiofsd_named(kind), where, program);
	log_error("%s cannot be started: %s", program, strerror(-r));
	return r;
}
