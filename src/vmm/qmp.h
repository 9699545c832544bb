/*
 * QMP over a connected socket (QEMU docs/interop/qmp-spec.rst), one command at a time.
 *
 * The peer is hostile: a line above QMP_LINE_MAX, text that is no JSON, or a reply that does not come
 * within QMP_REPLY_USEC ends the conversation with QMP_FAULT, once, and nothing is sent after it. Only
 * the handshake has no deadline here: who starts a VMM knows how long that may take.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define QMP_LINE_MAX   (64 * 1024)
#define QMP_REPLY_USEC (UINT64_C(5) * 1000000)

typedef struct sd_event sd_event;
struct json_object;
struct qmp;

enum qmp_kind {
	QMP_READY,  /* greeting and capabilities are done */
	QMP_EVENT,  /* NAME and DATA (borrowed, may be NULL) */
	QMP_RESULT, /* the same, to what was asked by qmp_ask() */
	QMP_REPLY, /* to the last command; DATA is the return value; NAME not NULL: it failed so, and DATA is the error */
	QMP_CLOSED, /* the peer closed the socket */
	QMP_FAULT,  /* NAME says what */
};

typedef void (*qmp_handler)(struct qmp *q, enum qmp_kind kind, const char *name,
	struct json_object *data, void *userdata);

/* FD is taken over whatever is returned. */
int qmp_create_consume(
	sd_event *event, int fd, qmp_handler handler, void *userdata, struct qmp **ret);

/* Sends {"execute": COMMAND}; queued behind one that is under way (at most 8: -EBUSY). */
int qmp_execute(struct qmp *q, const char *command);

/*
 * The same with arguments: COMMAND is {"execute": …, "arguments": …} in one line. FD (-EBADF: none) goes beside
 * it. COMMAND (heap) and FD are taken over whatever is returned; -ENOMEM when COMMAND is NULL.
 */
int qmp_ask_consume(struct qmp *q, char *command, int fd);

/*
 * For the next image of this process: the socket (borrowed) and what was read of an unfinished line. -EBUSY when
 * this is not the moment: before the handshake's end, with a command under way, or after the end.
 */
int qmp_save(const struct qmp *q, int *ret_fd, const char **ret_line, size_t *ret_len);

/* Goes on with such a conversation. FD is taken over whatever is returned; -EINVAL: too long a line. */
int qmp_restore_consume(sd_event *event, int fd, const char *line, size_t len, qmp_handler handler,
	void *userdata, struct qmp **ret);

void qmp_destroy(struct qmp *q);
