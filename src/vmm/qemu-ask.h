/* What QEMU is asked in the course of one operation, and how many of the answers are still to come. */
#pragma once

#include <stdint.h>

struct qmp;

struct qemu_ask {
	struct qmp *qmp;    /* borrowed */
	uint32_t n_results; /* QMP_RESULTs that are still to come */
};

/* LINE as it is. All of them return what qmp_ask_consume() does. */
int qemu_ask_line(struct qemu_ask *a, const char *line);

/* {"execute": VERB} */
int qemu_ask(struct qemu_ask *a, const char *verb);

/* With arguments: what stands between their braces. */
int qemu_ask_with(struct qemu_ask *a, const char *verb, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* And with a descriptor beside it, which is taken over whatever is returned. */
int qemu_ask_fd_consume(struct qemu_ask *a, int fd, const char *verb, const char *format, ...)
	__attribute__((format(printf, 4, 5)));
