#include "vm-event.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "clock.h"
#include "json-codec.h"
#include "lock.h"
#include "str.h"
#include "vm-dirs.h"

#define EVENT_CAUSE_MAX 1024

static const struct json_field event_fields[] = {
	JSON_FIELD(struct vm_event, time_usec, JSON_U64),
	JSON_FIELD(struct vm_event, vm, JSON_STR),
	JSON_FIELD(struct vm_event, event, JSON_STR),
	JSON_FIELD(struct vm_event, state, JSON_STR),
	JSON_FIELD(struct vm_event, was, JSON_STR),
	JSON_FIELD(struct vm_event, outcome, JSON_STR),
	JSON_FIELD(struct vm_event, cause, JSON_STR),
	JSON_FIELD(struct vm_event, incarnation, JSON_STR),
};

/* Only the one who sees the full file still under its name moves it. */
static void event_rotate(int state, int fd)
{
	struct stat here, there;

	if (lock_named_wait(fd) < 0 || fstat(fd, &here) < 0 ||
		fstatat(state, VM_EVENT_FILE, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (here.st_ino == there.st_ino && here.st_dev == there.st_dev)
		(void)renameat(state, VM_EVENT_FILE, state, VM_EVENT_OLD_FILE);
}

static int event_write(int state, const char *line, size_t len)
{
	CLEANUP_CLOSE int fd = openat(
		state, VM_EVENT_FILE, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = write(fd, line, len);
	if (n < 0)
		return -errno;
	if (fstat(fd, &st) == 0 && st.st_size >= VM_EVENT_FILE_MAX)
		event_rotate(state, fd);
	return (size_t)n == len ? 0 : -ENOSPC;
}

/* The first line of S, at most EVENT_CAUSE_MAX bytes: a cause may hold a console's last lines. */
static void event_cut(char out[static EVENT_CAUSE_MAX + 1], const char *s)
{
	snprintf(out, EVENT_CAUSE_MAX + 1, "%.*s", (int)strcspn(s, "\n"), s);
}

int vm_event_append(const struct vm_dirs *dirs, const struct vm_event *e)
{
	CLEANUP(json_codec_putp) struct json_object *o = NULL;
	CLEANUP_CLOSE int state = vm_dirs_open_state(dirs, ".");
	CLEANUP_FREE char *line = NULL;
	char cause[EVENT_CAUSE_MAX + 1];
	struct vm_event copy = *e;

	if (state < 0)
		return state;
	if (!copy.time_usec)
		copy.time_usec = clock_usec(CLOCK_REALTIME);
	if (copy.cause) {
		event_cut(cause, copy.cause);
		copy.cause = cause;
	}
	o = vm_event_to_json(&copy);
	line = o ? str_printf("%s\n", json_object_to_json_string_ext(o, JSON_C_TO_STRING_PLAIN))
		 : NULL;
	if (!line)
		return -ENOMEM;
	return strlen(line) > VM_EVENT_LINE_MAX ? -EMSGSIZE
						: event_write(state, line, strlen(line));
}

int vm_event_parse(const char *line, size_t len, struct vm_event *ret)
{
	CLEANUP(json_codec_putp) struct json_object *o = NULL;
	struct vm_event e = { 0 };
	const char *bad;
	int r;

	if (len > VM_EVENT_LINE_MAX)
		return -EBADMSG;
	r = json_codec_parse(line, len, &o);
	if (r == 0)
		r = json_codec_decode(o, event_fields, ARRAY_SIZE(event_fields), &e, &bad);
	if (r == 0 && (!e.vm || !e.event))
		r = -EBADMSG;
	if (r < 0) {
		vm_event_finish(&e);
		return r == -ENOMEM ? r : -EBADMSG;
	}
	*ret = e;
	return 0;
}

struct json_object *vm_event_to_json(const struct vm_event *e)
{
	return json_codec_encode(event_fields, ARRAY_SIZE(event_fields), e);
}

void vm_event_finish(struct vm_event *e)
{
	json_codec_release(event_fields, ARRAY_SIZE(event_fields), e);
}
