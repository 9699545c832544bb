#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cleanup.h"
#include "doctor-package.h"
#include "doctor-parse.h"
#include "doctor-probe.h"
#include "doctor.h"
#include "json-codec.h"
#include "str.h"
#include "unit.h"

static void look_fine(const struct doctor_host *host, struct doctor_finding *f)
{
	doctor_found(f, DOCTOR_OK, NULL, "all %s", "well");
}

static void look_slow(const struct doctor_host *host, struct doctor_finding *f)
{
	doctor_found(f, DOCTOR_OK, "nothing", "first thought");
	doctor_found(f, DOCTOR_WARNING, "buy a faster one", "slow");
}

static void look_gone(const struct doctor_host *host, struct doctor_finding *f)
{
	doctor_found(f, DOCTOR_MISSING, host->is_root ? "find it" : NULL, "gone");
}

static const struct doctor_check good[] = { { "fine", look_fine }, { "slow", look_slow }, { 0 } };
static const struct doctor_check bad[] = { { "gone", look_gone }, { 0 } };

static void the_worst_is_the_verdict(void **state)
{
	CLEANUP(doctor_report_finish) struct doctor_report r = { 0 };
	struct doctor_host host = { .is_root = true };

	assert_int_equal(doctor_verdict(&r), DOCTOR_OK);
	assert_int_equal(doctor_run(good, &host, &r), 0);
	assert_int_equal(doctor_verdict(&r), DOCTOR_WARNING);
	assert_int_equal(doctor_run(bad, &host, &r), 0);
	assert_int_equal(doctor_verdict(&r), DOCTOR_MISSING);
	assert_int_equal(r.n_entries, 3);
	/* a second finding replaces the first */
	assert_string_equal(r.entries[1].finding.text, "slow");
	assert_string_equal(r.entries[1].finding.remedy, "buy a faster one");
}

static void json_tells_all(void **state)
{
	CLEANUP(doctor_report_finish) struct doctor_report r = { 0 };
	CLEANUP(json_codec_putp) struct json_object *obj = NULL;
	struct doctor_host host = { 0 };

	assert_int_equal(doctor_run(good, &host, &r), 0);
	assert_int_equal(doctor_run(bad, &host, &r), 0);
	obj = doctor_to_json(&r);
	assert_non_null(obj);
	assert_string_equal(json_object_to_json_string_ext(obj, JSON_C_TO_STRING_PLAIN),
		"{\"result\":\"missing\",\"checks\":["
		"{\"name\":\"fine\",\"result\":\"ok\",\"text\":\"all well\"},"
		"{\"name\":\"slow\",\"result\":\"warning\",\"text\":\"slow\","
		"\"remedy\":\"buy a faster one\"},"
		"{\"name\":\"gone\",\"result\":\"missing\",\"text\":\"gone\"}]}");
}

/* Every check has something to say, also where there are no directories; and a remedy for a lack. */
static void every_check_speaks(void **state)
{
	static const struct doctor_check *const tables[] = { doctor_vmm_checks, doctor_host_checks,
		doctor_image_checks };
	struct doctor_host host = { .dirs_error = -EACCES, .is_root = geteuid() == 0 };

	for (size_t i = 0; i < ARRAY_SIZE(tables); i++) {
		CLEANUP(doctor_report_finish) struct doctor_report r = { 0 };

		assert_int_equal(doctor_run(tables[i], &host, &r), 0);
		assert_true(r.n_entries > 0);
		for (size_t e = 0; e < r.n_entries; e++)
			assert_true(*r.entries[e].finding.text);
	}
}

static void packages_by_distribution(void **state)
{
	static const struct {
		const char *os_release, *program, *want;
	} cases[] = {
		{ "NAME=\"Debian\"\nID=debian\n", "mkfs.erofs", "apt install erofs-utils" },
		{ "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "newuidmap", "apt install uidmap" },
		{ "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", "qemu-system-x86_64",
			"dnf install qemu-system-x86-core" },
		{ "ID=arch", "qemu-system-x86_64", "pacman -S qemu-base" },
		{ "VERSION_ID=x\nID=nixos\n", "qemu-system-x86_64",
			"nix profile install nixpkgs#qemu" },
		{ "ID=debian\n", "other", "apt install other" },
		{ "XID=debian\nID=debianish\n", "mkfs.erofs",
			"install mkfs.erofs with your package manager (Debian calls it "
			"erofs-utils)" },
		{ "ID=", "skopeo",
			"install skopeo with your package manager (Debian calls it skopeo)" },
		{ NULL, "skopeo",
			"install skopeo with your package manager (Debian calls it skopeo)" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		CLEANUP_FREE char *got =
			doctor_package_command(cases[i].program, cases[i].os_release);

		assert_string_equal(got, cases[i].want);
	}
}

static void versions(void **state)
{
	unsigned major, minor;

	assert_true(doctor_parse_version(
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", &major, &minor));
	assert_int_equal(major, 7);
	assert_int_equal(minor, 2);
	assert_true(doctor_parse_version("QEMU emulator version 10.0.2", &major, &minor));
	assert_int_equal(major, 10);
	assert_false(doctor_parse_version("QEMU emulator version", &major, &minor));
	assert_false(doctor_parse_version("version x.y", &major, &minor));
	assert_false(doctor_parse_version("", &major, &minor));
}

static void subordinate_ids(void **state)
{
	static const char text[] =
		"# comment\nroot:100000:65536\nann:165536:1000\nann:200000:65536\n"
		"1007:300000:70000\nbroken\nann:x:y\n";

	assert_int_equal(doctor_parse_subids(text, "ann", 1000), 65536);
	assert_int_equal(doctor_parse_subids(text, "bob", 1007), 70000);
	assert_int_equal(doctor_parse_subids(text, "bob", 1000), 0);
	assert_int_equal(doctor_parse_subids(text, "an", 5), 0);
	assert_int_equal(doctor_parse_subids("", "ann", 1000), 0);
}

static int change_directory(void)
{
	return chdir("/") < 0 ? -errno : -ENOTEMPTY;
}

static void probes_leave_nothing(void **state)
{
	CLEANUP_FREE char *before = getcwd(NULL, 0), *after = NULL, *line = NULL;

	assert_int_equal(doctor_probe_in_child(change_directory), -ENOTEMPTY);
	after = getcwd(NULL, 0);
	assert_string_equal(before, after);
	assert_int_equal(doctor_probe_line("/bin/echo", "a line", &line), 0);
	assert_string_equal(line, "a line");
	assert_int_equal(doctor_probe_line("/bin/true", "x", &line), -EIO);
	assert_int_equal(doctor_probe_line("/nowhere/x", "x", &line), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_worst_is_the_verdict),
		cmocka_unit_test(json_tells_all),
		cmocka_unit_test(every_check_speaks),
		cmocka_unit_test(packages_by_distribution),
		cmocka_unit_test(versions),
		cmocka_unit_test(subordinate_ids),
		cmocka_unit_test(probes_leave_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
