#include "sv-net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "boot-desc.h"
#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "log.h"
#include "parse.h"
#include "path.h"
#include "sockun.h"
#include "spawn.h"
#include "str.h"
#include "sv-children.h"
#include "sv-events.h"
#include "sv-tap.h"
#include "sv.h"
#include "vm-name.h"
#include "vm-publish.h"

/* The guest's side of the link; the same for every VM, since no two share a link. */
#define NET_GUEST     "10.0.2.15"
#define NET_GATEWAY   "10.0.2.2"
#define NET_DNS       "10.0.2.3"
#define NET_PREFIX    24
#define NET_PASST_MAC "02:75:76:6d:73:01"

#define NET_RESTARTS  5
#define NET_LOW_PORTS 1024

union net_address {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

static int net_push_publish(const struct sv *sv, char ***args)
{
	int r = 0;

	for (char **v = sv->spec.publish; v && *v && r == 0; v++) {
		struct vm_publish p;

		r = vm_publish_parse(*v, &p);
		r = r ? r : strv_push(args, p.udp ? "-u" : "-t");
		r = r ? r : strv_pushf(args, "%s/%u:%u", p.address, p.host, p.guest);
	}
	return r;
}

/* Only root may bind them: passt then starts as root and changes to the VM's uid when it has. */
static bool net_needs_low_ports(const struct sv *sv)
{
	struct vm_publish p;

	for (char **v = sv->spec.publish; v && *v; v++) {
		if (vm_publish_parse(*v, &p) == 0 && p.host < NET_LOW_PORTS)
			return geteuid() == 0;
	}
	return false;
}

static int net_arguments(const struct sv *sv, const char *program, char ***args)
{
	static const char *const fixed[] = { "--foreground", "--stderr", "--fd", "3", "--address",
		NET_GUEST, "--gateway", NET_GATEWAY, "--mac-addr", NET_PASST_MAC, "--dns-forward",
		NET_DNS, "--no-map-gw" };
	int r = strv_push(args, program);

	if (r == 0)
		r = strv_push(args, "--netmask");
	r = r ? r : strv_pushf(args, "%d", NET_PREFIX);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(fixed); i++)
		r = strv_push(args, fixed[i]);
	if (r == 0 && net_needs_low_ports(sv)) {
		r = strv_push(args, "--runas");
		r = r ? r : strv_push(args, "{uid}");
	}
	return r ? r : net_push_publish(sv, args);
}

static bool net_publishes_udp_on_loopback(const struct sv *sv)
{
	struct vm_publish p;

	for (char **v = sv->spec.publish; v && *v; v++) {
		if (vm_publish_parse(*v, &p) == 0 && p.udp &&
			(str_has_prefix(p.address, "127.") || str_eq(p.address, "::1")))
			return true;
	}
	return false;
}

/*
 * Before 2024 passt sent answers to UDP from the loopback to the router's address, where --no-map-gw ends
 * them; and without that the guest would reach every service on the host's loopback.
 */
static bool net_answers_udp_on_loopback(const char *program)
{
	CLEANUP_CLOSE int help = fd_memfd("uvms-passt-help"), pidfd = -EBADF;
	CLEANUP_FREE char *text = NULL;
	struct spawn spawn = { SPAWN_DEFAULTS, .path = program,
		.argv = (const char *[]){ "passt", "--help", NULL }, .stdout_fd = help,
		.stderr_fd = help };

	if (help < 0 || spawn_process(&spawn, NULL, &pidfd) < 0)
		return false;
	(void)spawn_wait(pidfd);
	if (lseek(help, 0, SEEK_SET) < 0 || file_read_fd(help, 1 << 20, &text, NULL) < 0)
		return false;
	return strstr(text, "--map-host-loopback");
}

static int net_check_udp(struct sv *sv, const char *program, char **ret_reason, char **ret_next)
{
	if (!net_publishes_udp_on_loopback(sv) || net_answers_udp_on_loopback(program))
		return 0;
	*ret_reason =
		strdup("a UDP port on the loopback: not supported here, this passt is too old "
		       "to answer it");
	*ret_next =
		strdup("publish it on another address of the host, as in -p ADDR:HOST:GUEST/udp, "
		       "or install passt of 2024 or later");
	return -EOPNOTSUPP;
}

/* The first port that anybody may bind; ip-sysctl: ip_unprivileged_port_start. */
static uint32_t net_first_port(void)
{
	CLEANUP_FREE char *text = NULL;
	uint32_t port;

	if (file_read_at(
		    AT_FDCWD, "/proc/sys/net/ipv4/ip_unprivileged_port_start", 16, &text, NULL) < 0)
		return NET_LOW_PORTS;
	text[strcspn(text, "\n")] = 0;
	return parse_u32(text, 65535, &port) < 0 ? NET_LOW_PORTS : port;
}

/* passt itself only says that it could not. */
static int net_check_low_ports(struct sv *sv, char **ret_reason, char **ret_next)
{
	uint32_t first = geteuid() == 0 || !sv->spec.publish ? 0 : net_first_port();
	struct vm_publish p;

	for (char **v = sv->spec.publish; v && *v; v++) {
		if (vm_publish_parse(*v, &p) < 0 || p.host >= first)
			continue;
		*ret_reason =
			str_printf("port %u is below %u: only root may publish it", p.host, first);
		*ret_next = strdup("publish another port of the host");
		return -EPERM;
	}
	return 0;
}

static socklen_t net_address(const struct vm_publish *p, union net_address *ret)
{
	*ret = (union net_address){ 0 };
	if (inet_pton(AF_INET, p->address, &ret->in.sin_addr) == 1) {
		ret->in.sin_family = AF_INET;
		ret->in.sin_port = htons((uint16_t)p->host);
		return sizeof ret->in;
	}
	if (inet_pton(AF_INET6, p->address, &ret->in6.sin6_addr) != 1)
		return 0;
	ret->in6.sin6_family = AF_INET6;
	ret->in6.sin6_port = htons((uint16_t)p->host);
	return sizeof ret->in6;
}

/* As passt will bind it; whatever else is wrong it says itself. 0, or -EADDRINUSE. */
static int net_try_port(const struct vm_publish *p)
{
	union net_address address;
	socklen_t len = net_address(p, &address);
	CLEANUP_CLOSE int fd = -EBADF;
	int one = 1;

	if (len == 0)
		return 0;
	fd = socket(address.sa.sa_family, (p->udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (address.sa.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
	return bind(fd, &address.sa, len) < 0 && errno == EADDRINUSE ? -EADDRINUSE : 0;
}

/* passt finds out when it runs; a VM that runs has its device by then. */
static int net_check_free_ports(struct sv *sv, char **ret_reason, char **ret_next)
{
	struct vm_publish p;

	for (char **v = sv->spec.publish; v && *v; v++) {
		if (vm_publish_parse(*v, &p) < 0 || net_try_port(&p) == 0)
			continue;
		*ret_reason = str_printf(
			"port %u of %s is in use%s", p.host, p.address, p.udp ? " (UDP)" : "");
		*ret_next = strdup("publish another port of the host");
		return -EADDRINUSE;
	}
	return 0;
}

int sv_net_plan(struct sv *sv, char **ret_reason, char **ret_next)
{
	CLEANUP_FREE char *program = NULL;
	CLEANUP(strv_freep) char **args = NULL;
	int r;

	if (!vm_spec_has_network(&sv->spec))
		return 0;
	if (path_find_program("passt", &program) < 0) {
		*ret_reason = strdup("--net=user: not supported here, passt is not installed");
		*ret_next = strdup("apt install passt");
		return -EOPNOTSUPP;
	}
	r = net_check_udp(sv, program, ret_reason, ret_next);
	if (r == 0)
		r = net_check_low_ports(sv, ret_reason, ret_next);
	if (r == 0)
		r = net_check_free_ports(sv, ret_reason, ret_next);
	if (r == 0)
		r = net_arguments(sv, program, &args);
	if (r < 0)
		return r;
	return vm_plan_add_consume(&sv->plan, VM_STEP_NETWORK, TAKE_PTR(args));
}

void sv_net_mac(const char *vm_name, char out[static 18])
{
	char id[33];

	vm_name_id("mac", vm_name, id);
	snprintf(out, 18, "02:%.2s:%.2s:%.2s:%.2s:%.2s", id, id + 2, id + 4, id + 6, id + 8);
}

static void net_ipv4(const char *text, uint8_t out[static BOOT_DESC_IPV4])
{
	(void)sscanf(text, "%hhu.%hhu.%hhu.%hhu", &out[0], &out[1], &out[2], &out[3]);
}

void sv_net_describe(const struct sv *sv, struct boot_desc *d)
{
	struct boot_desc_network *n = &d->network;
	uint8_t *m = n->mac;
	char mac[18];

	if (!vm_spec_has_network(&sv->spec))
		return;
	d->flags |= BOOT_DESC_NETWORK;
	sv_net_mac(sv->spec.name, mac);
	(void)sscanf(
		mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]);
	net_ipv4(NET_GUEST, n->address);
	net_ipv4(NET_GATEWAY, n->gateway);
	net_ipv4(NET_DNS, n->dns);
	n->prefix = NET_PREFIX;
	n->mtu = SV_TAP_MTU;
}

static int net_spawn(struct sv *sv, const struct vm_step *step)
{
	char uid[32];

	snprintf(uid, sizeof uid, "%u:%u", sv->status.uid, sv->status.uid);
	CLEANUP_FREE const char **argv = sv_child_arguments(step, "{uid}", uid);
	struct spawn_limit limits[] = { { RLIMIT_CORE, 0 } };
	struct spawn spawn = { SPAWN_DEFAULTS, .fds = &sv->net_fd, .n_fds = 1, .limits = limits,
		.n_limits = ARRAY_SIZE(limits) };

	if (!argv)
		return -ENOMEM;
	spawn.path = argv[0];
	spawn.argv = argv;
	sv_child_confine(&sv->net_child, &spawn);
	spawn.unshare_flags &= ~CLONE_NEWNET;
	if (net_needs_low_ports(sv))
		spawn.uid = spawn.gid = (uid_t)-1;
	return sv_child_start(&sv->net_child, &spawn);
}

int sv_net_start(struct sv *sv, const struct vm_step *step, char **ret_reason)
{
	int pair[2], r;

	r = sockun_pair(SOCK_STREAM, pair);
	if (r < 0)
		return r;
	sv->net_fd = pair[1];
	if (vmm_backend_caps(sv->backend) & VMM_CAP_NET_TAP)
		r = sv_tap_start(sv, pair[0], ret_reason);
	else
		sv->vmm_fds[VMM_FD_NET] = pair[0];
	if (r == 0)
		r = net_spawn(sv, step);
	return r < 0 ? r : str_set(&sv->status.network, "user " NET_GUEST);
}

void sv_net_stop(struct sv *sv)
{
	sv_child_finish(&sv->net_child);
	sv_tap_stop(sv);
	sv->net_fd = fd_close(sv->net_fd);
}

struct sv_child *sv_net_ended(struct sv *sv)
{
	if (!sv_child_is_running(&sv->net_child))
		return &sv->net_child;
	return sv->tap.link_fd >= 0 && !sv_child_is_running(&sv->tap.child) ? &sv->tap.child : NULL;
}

static void net_lost(struct sv *sv)
{
	log_error("%s: the guest has lost its network", sv->spec.name);
	(void)str_set(&sv->status.network,
		sv->link.attached || sv_link_is_coming(sv)
			? "lost; uvms detach --net, then uvms attach give a new one"
			: "lost; uvms restart gives a new one");
	sv_status_save(sv);
}

static int net_again(struct sv *sv, struct sv_child *ended)
{
	if (ended == &sv->tap.child)
		return sv_tap_again(sv);
	sv_child_again(ended);
	return sv->net_restarts++ < NET_RESTARTS
		       ? net_spawn(sv, vm_plan_find(&sv->plan, VM_STEP_NETWORK))
		       : -EAGAIN;
}

void sv_net_restart(struct sv *sv, const char *cause)
{
	struct sv_child *ended = sv_net_ended(sv);
	CLEANUP_FREE char *said = NULL;
	bool coming = sv_link_is_coming(sv);
	int r;

	sv_child_catch_up(ended);
	said = sv_logfile_tail(&ended->log, 300);
	log_warning("%s: %s: %s", sv->spec.name, str_or(cause, "passt ended"), str_or(said, ""));
	/* who has just begun is not tried again: somebody waits for it */
	r = coming ? -ECANCELED : net_again(sv, ended);
	if (r < 0)
		net_lost(sv);
	else
		sv_status_save(sv);
	sv_events_note(sv, "network",
		coming  ? "it ended as soon as it had begun"
		: r < 0 ? "it ended again and again: the network is lost"
			: str_or(cause, "passt"));
	if (coming)
		sv_link_lost(sv);
}
