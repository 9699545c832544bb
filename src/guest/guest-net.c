#include "guest-net.h"

#include "cleanup.h"
#include "file.h"
#include "guest-stop.h"
#include "str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* "02:…": as the kernel prints it in /sys/class/net/NAME/address. */
static bool has_mac(int class_fd, const char *name, const char *mac)
{
	char path[IFNAMSIZ + sizeof "/address"];
	CLEANUP_FREE char *text = NULL;

	snprintf(path, sizeof path, "%.*s/address", IFNAMSIZ - 1, name);
	return file_read_at(class_fd, path, 64, &text, NULL) == 0 && str_has_prefix(text, mac);
}

static int find_interface(const uint8_t *mac, char ret_name[static IFNAMSIZ])
{
	char text[18];
	DIR *d = opendir("/sys/class/net");
	int r = -ENODEV;

	if (!d)
		return -errno;
	snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
		mac[4], mac[5]);
	for (struct dirent *e; r < 0 && (e = readdir(d));) {
		if (e->d_name[0] == '.' || !has_mac(dirfd(d), e->d_name, text))
			continue;
		snprintf(ret_name, IFNAMSIZ, "%.*s", IFNAMSIZ - 1, e->d_name);
		r = 0;
	}
	closedir(d);
	return r;
}

static struct sockaddr ipv4(const uint8_t *address)
{
	struct sockaddr_in sa = { .sin_family = AF_INET };
	struct sockaddr ret;

	memcpy(&sa.sin_addr, address, BOOT_DESC_IPV4);
	memcpy(&ret, &sa, sizeof ret);
	return ret;
}

static struct sockaddr netmask(uint8_t prefix)
{
	uint32_t bits = htonl(UINT32_MAX << (32 - prefix));

	return ipv4((const uint8_t *)&bits);
}

static int set(int fd, const char *name, unsigned long request, struct ifreq *ifr)
{
	snprintf(ifr->ifr_name, sizeof ifr->ifr_name, "%s", name);
	return ioctl(fd, request, ifr) < 0 ? -errno : 0;
}

static int set_address(
	int fd, const char *name, const struct boot_desc_network *n, const char **ret_step)
{
	struct ifreq mtu = { .ifr_mtu = (int)n->mtu }, address = { .ifr_addr = ipv4(n->address) },
		     mask = { .ifr_netmask = netmask(n->prefix) },
		     flags = { .ifr_flags = IFF_UP | IFF_RUNNING };
	int r;

	*ret_step = "MTU";
	r = set(fd, name, SIOCSIFMTU, &mtu);
	*ret_step = r < 0 ? *ret_step : "address";
	r = r < 0 ? r : set(fd, name, SIOCSIFADDR, &address);
	r = r < 0 ? r : set(fd, name, SIOCSIFNETMASK, &mask);
	*ret_step = r < 0 ? *ret_step : "interface";
	return r < 0 ? r : set(fd, name, SIOCSIFFLAGS, &flags);
}

static int set_route(int fd, const char *name, const struct boot_desc_network *n)
{
	static const uint8_t any[BOOT_DESC_IPV4];
	char dev[IFNAMSIZ];
	struct rtentry route = { .rt_dst = ipv4(any),
		.rt_genmask = ipv4(any),
		.rt_gateway = ipv4(n->gateway),
		.rt_flags = RTF_UP | RTF_GATEWAY,
		.rt_dev = dev };

	snprintf(dev, sizeof dev, "%s", name);
	return ioctl(fd, SIOCADDRT, &route) < 0 && errno != EEXIST ? -errno : 0;
}

/* Replaces what the image has, a link into /run of a resolver that may not run as well. */
static int write_resolver(const uint8_t *dns)
{
	CLEANUP_CLOSE int etc = file_mkdir_path("/etc", 0755);
	char text[64];
	int n = snprintf(
		text, sizeof text, "nameserver %u.%u.%u.%u\n", dns[0], dns[1], dns[2], dns[3]);

	return etc < 0 ? etc : file_write_at(etc, "resolv.conf", text, (size_t)n, 0644);
}

int guest_net_configure(const struct boot_desc_network *n, const char **ret_step)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	char name[IFNAMSIZ];
	int r;

	*ret_step = "interface";
	if (fd < 0)
		return -errno;
	r = find_interface(n->mac, name);
	if (r < 0)
		return r;
	r = set_address(fd, name, n, ret_step);
	if (r < 0)
		return r;
	*ret_step = "route";
	r = set_route(fd, name, n);
	if (r < 0)
		return r;
	*ret_step = "/etc/resolv.conf";
	return write_resolver(n->dns);
}

void guest_net_loopback(void)
{
	CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = { .ifr_flags = IFF_UP | IFF_RUNNING };
	int r = fd < 0 ? -errno : set(fd, "lo", SIOCSIFFLAGS, &ifr);

	if (r < 0)
		guest_stop_warn("loopback: %s", strerror(-r));
}
