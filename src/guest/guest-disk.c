#include "guest-disk.h"

#include "cleanup.h"
#include "file.h"
#include "guest-uevent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define SERIAL_FILE_MAX 256

struct search {
	const struct wire_str *serial;
	char *ret;
};

static bool disk_has_serial(int dir, const char *name, const struct wire_str *serial)
{
	CLEANUP_FREE char *text = NULL;
	char file[300];
	int r = snprintf(file, sizeof file, "%s/serial", name);

	if (r >= (int)sizeof file || file_read_at(dir, file, SERIAL_FILE_MAX, &text, NULL) < 0)
		return false;
	text[strcspn(text, "\n")] = '\0';
	return strlen(text) == serial->len && memcmp(text, serial->s, serial->len) == 0;
}

static int disk_search(void *user)
{
	struct search *s = user;
	DIR *d = opendir("/sys/block");
	struct dirent *e;
	int found = 0;

	if (!d)
		return -errno;
	while (!found && (e = readdir(d))) {
		if (e->d_name[0] == '.' || !disk_has_serial(dirfd(d), e->d_name, s->serial))
			continue;
		found = snprintf(s->ret, GUEST_DISK_PATH_MAX, "/dev/%s", e->d_name) <
				GUEST_DISK_PATH_MAX &&
			access(s->ret, F_OK) == 0;
	}
	closedir(d);
	return found;
}

int guest_disk_find(
	const struct wire_str *serial, int timeout_ms, char ret[static GUEST_DISK_PATH_MAX])
{
	struct search s = { .serial = serial, .ret = ret };

	return guest_uevent_wait(disk_search, &s, timeout_ms);
}
