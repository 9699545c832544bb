/* CPUs that come and go with QEMU: what is asked, for every mixture of those that are there. */
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "json-codec.h"
#include "qemu-cpus.h"
#include "str.h"
#include "unit.h"

/* As QEMU 7.2 lists them, the last first: HERE has '1' for one of the start, 'a' for one that was added, '.'. */
static struct json_object *listed(const char *here)
{
	CLEANUP_FREE char *text = strdup("[");
	struct json_object *o = NULL;

	for (size_t i = strlen(here); i-- > 0;) {
		CLEANUP_FREE char *path =
			here[i] == '1'
				? str_printf(",\"qom-path\":\"/machine/unattached/device[%zu]\"", i)
			: here[i] == 'a'
				? str_printf(",\"qom-path\":\"/machine/peripheral/cpu%zu\"", i)
				: strdup("");
		char *more =
			str_printf("%s{\"props\":{\"core-id\":0,\"thread-id\":0,\"socket-id\":%zu},"
				   "\"vcpus-count\":1,\"type\":\"max-x86_64-cpu\"%s}%s",
				text, i, path, i ? "," : "]");

		free(text);
		text = more;
	}
	assert_int_equal(json_codec_parse(text, strlen(text), &o), 0);
	return o;
}

static void want(const char *here, uint32_t goal, int error, const char *ids, size_t unplugs)
{
	CLEANUP(strv_freep) char **commands = NULL;
	struct json_object *o = listed(here);
	size_t n = 0;

	assert_int_equal(qemu_cpus_commands(o, goal, &commands, &n), error);
	json_object_put(o);
	assert_int_equal(strv_length(commands), strlen(ids));
	for (size_t i = 0; i < strlen(ids); i++) {
		CLEANUP_FREE char *id = str_printf("\"id\":\"cpu%c\"", ids[i]);

		assert_non_null(strstr(commands[i], id));
		assert_non_null(strstr(commands[i], unplugs ? "device_del" : "device_add"));
		assert_true(unplugs || strstr(commands[i], "\"driver\":\"max-x86_64-cpu\""));
	}
	assert_int_equal(n, unplugs);
}

static void test_ways(void **state)
{
	want("1...", 1, 0, "", 0);
	want("1...", 3, 0, "12", 0);
	want("1a..", 4, 0, "23", 0);
	want("1aa.", 2, 0, "2", 1);
	want("1aa.", 1, 0, "21", 2);
	want("1.a.", 3, 0, "1", 0);
	want("1.a.", 1, 0, "2", 1);
	want("11a", 1, 0, "2", 1); /* what remains is said when it is asked again */
	want("11.", 1, -EOPNOTSUPP, "", 0);
	want("1a", 3, -ERANGE, "", 0);
	want("1.........", 10, 0, "1234567", 0);
	want("1aaaaaaaaa", 1, 0, "9876543", 7);
}

static void test_nonsense(void **state)
{
	static const char *const texts[] = { "{}", "[{}]", "[1]", "null",
		"[{\"props\":{},\"type\":\"x\"}]",
		"[{\"props\":{\"socket-id\":-1},\"type\":\"x\"}]",
		"[{\"props\":{\"socket-id\":5000},\"type\":\"x\"}]",
		"[{\"props\":{\"socket-id\":1},\"type\":\"a\\\"b\"}]",
		"[{\"props\":{\"socket-id\":1},\"type\":7}]" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		struct json_object *o = NULL;
		char **commands = NULL;
		size_t n;

		if (json_codec_parse(texts[i], strlen(texts[i]), &o) < 0)
			assert_string_equal(texts[i], "null");
		assert_int_equal(qemu_cpus_commands(o, 1, &commands, &n), -EPROTO);
		assert_null(commands);
		json_object_put(o);
	}
}

static void test_ost(void **state)
{
	static const struct {
		const char *data;
		enum qemu_cpu_ost want;
	} tests[] = {
		{ "{\"info\":{\"source\":3,\"status\":0,\"slot-type\":\"CPU\"}}", QEMU_CPU_GONE },
		{ "{\"info\":{\"source\":259,\"status\":0,\"slot-type\":\"CPU\"}}", QEMU_CPU_GONE },
		{ "{\"info\":{\"source\":3,\"status\":132,\"slot-type\":\"CPU\"}}",
			QEMU_CPU_NOTHING },
		{ "{\"info\":{\"source\":3,\"status\":129,\"slot-type\":\"CPU\"}}", QEMU_CPU_KEPT },
		{ "{\"info\":{\"source\":1,\"status\":0,\"slot-type\":\"CPU\"}}",
			QEMU_CPU_NOTHING },
		{ "{\"info\":{\"source\":3,\"status\":0,\"slot-type\":\"DIMM\"}}",
			QEMU_CPU_NOTHING },
		{ "{\"info\":{\"source\":3,\"slot-type\":\"CPU\"}}", QEMU_CPU_KEPT },
		{ "{\"info\":[]}", QEMU_CPU_NOTHING },
		{ "[]", QEMU_CPU_NOTHING },
	};

	for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
		struct json_object *o = NULL;

		(void)json_codec_parse(tests[i].data, strlen(tests[i].data), &o);
		assert_int_equal(qemu_cpus_ost(o), tests[i].want);
		json_object_put(o);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ways),
		cmocka_unit_test(test_nonsense),
		cmocka_unit_test(test_ost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
