#include "guest-info.h"

#include "cleanup.h"
#include "file.h"
#include "str.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/utsname.h>

#define FILE_MAX      (64 * 1024)
#define ADDRESSES_MAX 64

struct text {
	char *buf;
	size_t size, len;
};

__attribute__((format(printf, 3, 4))) static void put(
	struct text *t, const char *key, const char *format, ...)
{
	char value[512], line[640];
	va_list ap;
	int n;

	va_start(ap, format);
	vsnprintf(value, sizeof value, format, ap);
	va_end(ap);
	value[strcspn(value, "\n")] = '\0';
	n = snprintf(line, sizeof line, "%s=%s\n", key, value);
	if (n <= 0 || (size_t)n >= t->size - t->len)
		return;
	memcpy(t->buf + t->len, line, (size_t)n + 1);
	t->len += (size_t)n;
}

/* The text after NAME up to the line's end; NULL if FILE or the name is missing. */
static char *value_in(const char *file, const char *name)
{
	CLEANUP_FREE char *text = NULL;
	const char *at;

	if (file_read_at(AT_FDCWD, file, FILE_MAX, &text, NULL) < 0)
		return NULL;
	at = strstr(text, name);
	return at ? str_printf("%.*s", (int)strcspn(at + strlen(name), "\n"), at + strlen(name))
		  : NULL;
}

static void put_memory(struct text *t)
{
	CLEANUP_FREE char *total = value_in("/proc/meminfo", "MemTotal:");
	CLEANUP_FREE char *available = value_in("/proc/meminfo", "MemAvailable:");

	put(t, "mem_total_kb", "%llu", strtoull(str_or(total, "0"), NULL, 10));
	put(t, "mem_available_kb", "%llu", strtoull(str_or(available, "0"), NULL, 10));
}

static void put_pressure(struct text *t)
{
	static const char *const resources[] = { "memory", "cpu", "io" };

	for (size_t i = 0; i < ARRAY_SIZE(resources); i++) {
		CLEANUP_FREE char *file = str_printf("/proc/pressure/%s", resources[i]);
		CLEANUP_FREE char *key = str_printf("psi_%s_some_avg10", resources[i]);
		CLEANUP_FREE char *value = file ? value_in(file, "some avg10=") : NULL;

		if (value && key)
			put(t, key, "%.*s", (int)strcspn(value, " "), value);
	}
}

static void put_os(struct text *t)
{
	CLEANUP_FREE char *name = value_in("/etc/os-release", "PRETTY_NAME=");
	size_t len;

	if (!name)
		name = value_in("/usr/lib/os-release", "PRETTY_NAME=");
	len = name ? strlen(name) : 0;
	if (len >= 2 && name[0] == '"' && name[len - 1] == '"')
		put(t, "os", "%.*s", (int)len - 2, name + 1);
	else if (len > 0)
		put(t, "os", "%s", name);
}

static void put_address(struct text *t, const struct ifaddrs *a)
{
	char text[INET6_ADDRSTRLEN] = "";

	if (!a->ifa_addr || (a->ifa_flags & IFF_LOOPBACK))
		return;
	if (a->ifa_addr->sa_family == AF_INET)
		inet_ntop(AF_INET, &((struct sockaddr_in *)(void *)a->ifa_addr)->sin_addr, text,
			sizeof text);
	else if (a->ifa_addr->sa_family == AF_INET6)
		inet_ntop(AF_INET6, &((struct sockaddr_in6 *)(void *)a->ifa_addr)->sin6_addr, text,
			sizeof text);
	if (text[0])
		put(t, "address", "%s %s", a->ifa_name, text);
}

static void put_addresses(struct text *t)
{
	struct ifaddrs *all = NULL;
	size_t n = 0;

	if (getifaddrs(&all) < 0)
		return;
	for (struct ifaddrs *a = all; a && n < ADDRESSES_MAX; a = a->ifa_next, n++)
		put_address(t, a);
	freeifaddrs(all);
}

void guest_info_text(char *buf, size_t size)
{
	struct text t = { .buf = buf, .size = size };
	CLEANUP_FREE char *uptime = value_in("/proc/uptime", "");
	CLEANUP_FREE char *boot_id = value_in("/proc/sys/kernel/random/boot_id", "");
	struct utsname un;

	buf[0] = '\0';
	put_memory(&t);
	put(&t, "uptime", "%.*s", (int)strcspn(str_or(uptime, "0"), " "), str_or(uptime, "0"));
	if (uname(&un) == 0) {
		put(&t, "kernel", "%s", un.release);
		put(&t, "hostname", "%s", un.nodename);
	}
	put(&t, "boot_id", "%s", str_or(boot_id, ""));
	put_os(&t);
	put_pressure(&t);
	put_addresses(&t);
}

int guest_info_boot_id(uint8_t ret[static 16])
{
	CLEANUP_FREE char *text = value_in("/proc/sys/kernel/random/boot_id", "");
	size_t n = 0;

	for (const char *p = text; p && p[0] && p[1] && n < 16; p++) {
		unsigned byte;

		if (*p == '-' || sscanf(p, "%2x", &byte) != 1)
			continue;
		ret[n++] = (uint8_t)byte;
		p++;
	}
	return n == 16 ? 0 : -ENOENT;
}
