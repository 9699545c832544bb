/*
 * What happened to the VMs of a realm, for whoever asks: STATE/events, one JSON object a line.
 *
 * Theory of operation. Every process that changes a VM (its supervisor, `run`, `rm`, the sweep of a killed
 * one) appends one line of at most VM_EVENT_LINE_MAX bytes with a single write(2), so lines never mix. When
 * the file has VM_EVENT_FILE_MAX bytes it becomes STATE/events.1, taking the place of the one before it:
 * that is all that is kept, and all the room it takes. How much of it one VM may take is its supervisor's to
 * limit (sv-events.h). Readers watch the directory (inotify). A realm that
 * cannot write (a full disk) loses events, nothing else.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct json_object;
struct vm_dirs;

#define VM_EVENT_FILE     "events"
#define VM_EVENT_OLD_FILE "events.1"
#define VM_EVENT_FILE_MAX (1024 * 1024)
#define VM_EVENT_LINE_MAX 4096

struct vm_event {
	uint64_t time_usec; /* CLOCK_REALTIME; 0: now */
	const char *vm;     /* owned when read, borrowed when written; so are all */
	const char *
		event; /* created, state, vsockd, network, share, process, refresh, omitted, removed */
	const char *state;   /* the state that the VM is in now */
	const char *was;     /* with "state": the one before */
	const char *outcome; /* with "state": how it ended */
	const char *cause;   /* one line */
	const char *incarnation;
};

/* Strings are cut where the line would become too long. 0 or -errno. */
int vm_event_append(const struct vm_dirs *dirs, const struct vm_event *e);

/* A line of the file, without its end. -EBADMSG: it is none. */
int vm_event_parse(const char *line, size_t len, struct vm_event *ret);
struct json_object *vm_event_to_json(const struct vm_event *e);
void vm_event_finish(struct vm_event *e);
