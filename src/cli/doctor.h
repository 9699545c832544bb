/*
 * What this host can do: a table of checks, each of which looks at one thing and says what it found
 * and, when that is not all one could wish, the remedy.
 *
 * A check is "missing" only if no VM can run without it. It is a "warning" if something is slower,
 * less isolated or if some verb will not work.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct json_object;
struct vm_dirs;

enum doctor_result {
	DOCTOR_OK,
	DOCTOR_WARNING,
	DOCTOR_MISSING,
	DOCTOR_RESULTS,
};

struct doctor_finding {
	enum doctor_result result;
	char *text;   /* owned: what is there, one line; NULL: out of memory */
	char *remedy; /* owned: what to do; NULL when there is nothing to do */
};

struct doctor_host {
	const struct vm_dirs *dirs; /* borrowed; NULL: they cannot be used, DIRS_ERROR says why */
	int dirs_error;
	bool is_root;
};

struct doctor_check {
	const char *name;
	void (*look)(const struct doctor_host *host, struct doctor_finding *f);
};

/* The tables; each ends with a NULL name. */
extern const struct doctor_check doctor_vmm_checks[]; /* what runs a VM */
extern const struct doctor_check
	doctor_host_checks[]; /* directories, namespaces, kernel features */
extern const struct doctor_check doctor_image_checks[]; /* what makes images and kernels */

struct doctor_entry {
	const char *name; /* borrowed from the table */
	struct doctor_finding finding;
};

struct doctor_report {
	struct doctor_entry *entries; /* owned */
	size_t n_entries;
};

/* Makes every check of CHECKS and appends to R. 0 or -ENOMEM. */
int doctor_run(
	const struct doctor_check *checks, const struct doctor_host *host, struct doctor_report *r);
void doctor_report_finish(struct doctor_report *r);

/* The worst of all. */
enum doctor_result doctor_verdict(const struct doctor_report *r);

/* {"result": …, "checks": [{"name", "result", "text", "remedy"}]}. NULL: out of memory. */
struct json_object *doctor_to_json(const struct doctor_report *r);

/* Lines for people; those that are OK are left out when QUIET. */
void doctor_print(const struct doctor_report *r, bool quiet);

const char *doctor_result_name(enum doctor_result result);

/* For checks. The format is the text; the remedy is a copy of REMEDY (may be NULL). */
void doctor_found(struct doctor_finding *f, enum doctor_result result, const char *remedy,
	const char *format, ...) __attribute__((format(printf, 4, 5)));
