/* Versions as programs tell them, and the table of what came when. */
#include <string.h>

#include "ch-version.h"
#include "cleanup.h"
#include "unit.h"

static void numbers(void **state)
{
	static const struct {
		const char *text;
		uint32_t want;
	} all[] = {
		{ "cloud-hypervisor v53.0", 53 },
		{ "cloud-hypervisor v53.0-dirty", 53 },
		{ "v48.1.2", 48 },
		{ "53.0.0", 53 },
		{ "54.0.0\nMigration Protocol Versions: 0", 54 },
		{ "cloud-hypervisor v100.0", 100 },
		{ "\"version\":\"53.0.0\",\"pid\":7", 53 },
		{ "", 0 },
		{ "cloud-hypervisor", 0 },
		{ "v53", 0 }, /* no release says so */
		{ "v.1", 0 },
		{ "version 99999999999999999999.0", 0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		assert_int_equal(ch_version_parse(all[i].text), all[i].want);
}

static void features_have_a_name_and_a_beginning(void **state)
{
	for (enum ch_feature f = 0; f < CH_FEATURES; f++) {
		uint32_t since = ch_version_of(f);

		assert_true(since > CH_VERSION_MIN && since <= CH_VERSION_BEST);
		assert_true(strlen(ch_version_feature_name(f)) > 0);
		assert_false(ch_version_has(since - 1, f));
		assert_true(ch_version_has(since, f));
		assert_true(ch_version_has(CH_VERSION_BEST + 1, f));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers),
		cmocka_unit_test(features_have_a_name_and_a_beginning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
