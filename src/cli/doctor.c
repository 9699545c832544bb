#include "doctor.h"

#include <assert.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"

static const char *const result_names[] = {
	[DOCTOR_OK] = "ok",
	[DOCTOR_WARNING] = "warning",
	[DOCTOR_MISSING] = "missing",
};
static_assert(ARRAY_SIZE(result_names) == DOCTOR_RESULTS, "every result has a name");

const char *doctor_result_name(enum doctor_result result)
{
	return result_names[result];
}

void doctor_found(struct doctor_finding *f, enum doctor_result result, const char *remedy,
	const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	f->result = result;
	free(f->text);
	if (vasprintf(&f->text, format, ap) < 0)
		f->text = NULL;
	va_end(ap);
	(void)str_set(&f->remedy, remedy);
}

static void entry_finish(struct doctor_entry *e)
{
	free(e->finding.text);
	free(e->finding.remedy);
}

int doctor_run(
	const struct doctor_check *checks, const struct doctor_host *host, struct doctor_report *r)
{
	for (; checks->name; checks++) {
		struct doctor_entry *grown =
			reallocarray(r->entries, r->n_entries + 1, sizeof *grown);
		struct doctor_entry *e;

		if (!grown)
			return -ENOMEM;
		r->entries = grown;
		e = &grown[r->n_entries++];
		*e = (struct doctor_entry){ .name = checks->name };
		checks->look(host, &e->finding);
		if (!e->finding.text)
			return -ENOMEM;
	}
	return 0;
}

void doctor_report_finish(struct doctor_report *r)
{
	for (size_t i = 0; i < r->n_entries; i++)
		entry_finish(&r->entries[i]);
	free(r->entries);
	*r = (struct doctor_report){ 0 };
}

enum doctor_result doctor_verdict(const struct doctor_report *r)
{
	enum doctor_result worst = DOCTOR_OK;

	for (size_t i = 0; i < r->n_entries; i++) {
		if (r->entries[i].finding.result > worst)
			worst = r->entries[i].finding.result;
	}
	return worst;
}

static void add_string(struct json_object *obj, const char *key, const char *value)
{
	if (value)
		json_object_object_add(obj, key, json_object_new_string(value));
}

struct json_object *doctor_to_json(const struct doctor_report *r)
{
	struct json_object *obj = json_object_new_object(), *checks = json_object_new_array();

	if (!obj || !checks) {
		json_object_put(obj);
		json_object_put(checks);
		return NULL;
	}
	add_string(obj, "result", doctor_result_name(doctor_verdict(r)));
	json_object_object_add(obj, "checks", checks);
	for (size_t i = 0; i < r->n_entries; i++) {
		const struct doctor_finding *f = &r->entries[i].finding;
		struct json_object *check = json_object_new_object();

		add_string(check, "name", r->entries[i].name);
		add_string(check, "result", doctor_result_name(f->result));
		add_string(check, "text", f->text);
		add_string(check, "remedy", f->remedy);
		json_object_array_add(checks, check);
	}
	return obj;
}

void doctor_print(const struct doctor_report *r, bool quiet)
{
	for (size_t i = 0; i < r->n_entries; i++) {
		const struct doctor_finding *f = &r->entries[i].finding;
		char safe[2048];

		if (quiet && f->result == DOCTOR_OK)
			continue;
		str_escape(safe, sizeof safe, f->text, strlen(f->text), NULL);
		printf("%-8s %-15s %s\n", doctor_result_name(f->result), r->entries[i].name, safe);
		if (f->remedy)
			printf("%-24s remedy: %s\n", "", f->remedy);
	}
}
