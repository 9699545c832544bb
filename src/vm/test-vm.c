/* vm-name, vm-spec, vm-status, vm-plan, lease, runtime-dir: what a VM is, below a directory of its own. */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "lease.h"
#include "runtime-dir.h"
#include "str.h"
#include "unit.h"
#include "vm-dirs.h"
#include "vm-lease.h"
#include "vm-name.h"
#include "vm-plan.h"
#include "vm-service.h"
#include "vm-spec.h"
#include "vm-status.h"
#include "vm-virtiofsd.h"

static char top[] = "/tmp/uvms-test-vm-XXXXXX";

static int setup(void **state)
{
	char path[64];

	if (!mkdtemp(top))
		return 1;
	snprintf(path, sizeof path, "%s/state", top);
	setenv("UVMS_STATE_DIR", path, 1);
	snprintf(path, sizeof path, "%s/run", top);
	setenv("UVMS_RUNTIME_DIR", path, 1);
	return 0;
}

static int teardown(void **state)
{
	return file_remove_tree_at(AT_FDCWD, top);
}

static void names(void **state)
{
	static const char *const good[] = { "a", "web", "A1", "a-b.c",
		"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" };
	static const char *const bad[] = { "", ".", "..", "a/b", "-a", "a-", ".a", "a..b", "a b",
		"a_b", "a\n", "\xc3\xa4",
		"nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn" };
	const char *reason;
	char a[33], b[33], random[VM_NAME_MAX + 1];

	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_int_equal(vm_name_check(good[i], NULL), 0);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		reason = NULL;
		assert_int_equal(vm_name_check(bad[i], &reason), -EINVAL);
		assert_non_null(reason);
	}
	vm_name_random(random);
	assert_int_equal(vm_name_check(random, NULL), 0);
	vm_name_id("uuid", "web", a);
	vm_name_id("uuid", "web", b);
	assert_string_equal(a, b);
	vm_name_id("uuid", "wec", b);
	assert_string_not_equal(a, b);
	vm_name_id("machine-id", "web", b);
	assert_string_not_equal(a, b);
	assert_int_equal(strlen(a), 32);
}

static void spec_round_trip(void **state)
{
	CLEANUP(vm_spec_finish) struct vm_spec s, t = { 0 };
	CLEANUP(json_codec_putp) struct json_object *a = NULL, *b = NULL;
	const char *text;

	vm_spec_init(&s);
	str_set(&s.name, "web");
	str_set(&s.image, "debian \"x\" \xc3\xa4");
	strv_push(&s.command, "sh");
	strv_push(&s.command, "");
	strv_push(&s.env, "A=b c");
	s.start_timeout_usec = UINT64_MAX;
	s.keep = true;
	a = vm_spec_to_json(&s);
	text = json_object_to_json_string(a);
	assert_int_equal(vm_spec_from_json(text, strlen(text), &t, NULL), 0);
	b = vm_spec_to_json(&t);
	assert_string_equal(text, json_object_to_json_string(b));
	assert_true(t.start_timeout_usec == UINT64_MAX);
}

static void spec_refuses(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912} x",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":0,\"memory_bytes\":536870912}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":-1,\"memory_bytes\":536870912}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":99999999999,\"memory_bytes\":"
		"536870912}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":1}",
		"{\"name\":\"../x\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912}",
		"{\"name\":\"web\\u0000x\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912,\"odd\":"
		"1}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":\"1\",\"memory_bytes\":536870912}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912,"
		"\"command\":[1]}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912,"
		"\"backend\":\"xen\"}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912,"
		"\"cpu_model\":\"\"}",
		"{\"name\":\"web\",\"image\":\"x\",\"cpus\":1,\"memory_bytes\":536870912,"
		"\"vsock\":\"kernel\"}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vm_spec s = { 0 };
		CLEANUP_FREE char *reason = NULL;

		assert_true(vm_spec_from_json(bad[i], strlen(bad[i]), &s, &reason) < 0);
		assert_non_null(reason);
		vm_spec_finish(&s);
	}
}

static void cpu_models(void **state)
{
	static const char *const good[] = { NULL, "host", "EPYC,+svm,+npt", "486-v1",
		"max,la57=off,vendor=GenuineIntel", "qemu64,model-id=a.b_c" };
	static const char *const bad[] = { "", "help", "?", ",x", "-x", "+svm", "a b", "a\n", "a;b",
		"a/b", "a%b", "\xc3\xa4", "host,x='y'" };
	CLEANUP(vm_spec_finish) struct vm_spec s;
	char longest[VM_CPU_MODEL_MAX + 2];

	vm_spec_init(&s);
	str_set(&s.name, "web");
	str_set(&s.image, "x");
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		str_set(&s.cpu_model, good[i]);
		assert_int_equal(vm_spec_check(&s, NULL), 0);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		CLEANUP_FREE char *reason = NULL;

		str_set(&s.cpu_model, bad[i]);
		assert_int_equal(vm_spec_check(&s, &reason), -EINVAL);
		assert_non_null(strstr(reason, "CPU model"));
	}
	memset(longest, 'x', sizeof longest);
	longest[VM_CPU_MODEL_MAX + 1] = 0;
	str_set(&s.cpu_model, longest);
	assert_int_equal(vm_spec_check(&s, NULL), -EINVAL);
	longest[VM_CPU_MODEL_MAX] = 0;
	str_set(&s.cpu_model, longest);
	assert_int_equal(vm_spec_check(&s, NULL), 0);
}

static void plan_prints_quoted(void **state)
{
	struct vm_plan p = { 0 };
	CLEANUP_FREE char *line = NULL;
	char **args = NULL;

	strv_push(&args, "plain=x/y.z");
	strv_push(&args, "it's");
	strv_push(&args, "");
	assert_int_equal(vm_plan_add_consume(&p, VM_STEP_VMM, args), 0);
	line = vm_step_print(&p.steps[0]);
	assert_string_equal(line, "vmm plain=x/y.z 'it'\\''s' ''");
	vm_plan_finish(&p);
}

static void lock_is_shared_by_inheritance(void **state)
{
	CLEANUP_CLOSE int dir = open(top, O_RDONLY | O_DIRECTORY);
	int lock = lease_lock_at(dir, "l"), pipefd[2], status;
	pid_t child;

	assert_true(lock >= 0);
	assert_int_equal(lease_lock_at(dir, "l"), -EBUSY);
	assert_int_equal(lease_is_held_at(dir, "l"), 1);
	assert_int_equal(pipe(pipefd), 0);
	child = fork();
	if (child == 0) {
		char c;

		close(pipefd[1]);
		_exit(read(pipefd[0], &c, 1) != 0);
	}
	close(pipefd[0]);
	close(lock);
	/* the child has it still */
	assert_int_equal(lease_is_held_at(dir, "l"), 1);
	close(pipefd[1]);
	waitpid(child, &status, 0);
	assert_int_equal(lease_is_held_at(dir, "l"), 0);
	assert_int_equal(lease_is_held_at(dir, "none"), -ENOENT);
}

static void numbers_are_kept_and_differ(void **state)
{
	static const struct lease_range range = { "n", 100, 8 };
	CLEANUP_CLOSE int dir = open(top, O_RDONLY | O_DIRECTORY);
	uint32_t seen = 0, n, again;
	char name[16];

	for (int i = 0; i < 8; i++) {
		snprintf(name, sizeof name, "vm%d", i);
		assert_int_equal(lease_number(dir, &range, name, &n), 0);
		assert_true(n >= 100 && n < 108);
		assert_int_equal(seen & 1u << (n - 100), 0);
		seen |= 1u << (n - 100);
		assert_int_equal(lease_number(dir, &range, name, &again), 0);
		assert_int_equal(n, again);
	}
	assert_int_equal(lease_number(dir, &range, "one-more", &n), -ENOSPC);
	assert_int_equal(lease_forget(dir, &range, "vm3"), 0);
	assert_int_equal(lease_number(dir, &range, "one-more", &n), 0);
	/* a gap that was filled moves nobody else */
	for (int i = 4; i < 8; i++) {
		snprintf(name, sizeof name, "vm%d", i);
		assert_int_equal(lease_number(dir, &range, name, &n), 0);
	}
}

static void make_vm(const struct vm_dirs *dirs, const char *name, bool keep)
{
	CLEANUP_CLOSE int vm = vm_dirs_open_vm(dirs, name, true);
	CLEANUP(vm_spec_finish) struct vm_spec s;

	vm_spec_init(&s);
	str_set(&s.name, name);
	str_set(&s.image, "x");
	s.keep = keep;
	assert_int_equal(vm_spec_write(vm, &s), 0);
}

/* A supervisor that died without a word: swept, told as crashed, and free for the next start. */
static void sweep(void **state)
{
	struct vm_dirs dirs;
	struct runtime_dir rt;
	struct vm_status s = { 0 };
	char holder[16], name[RUNTIME_DIR_INCARNATION_MAX];
	int dir;

	assert_int_equal(vm_dirs_init(&dirs), 0);
	make_vm(&dirs, "gone", true);
	assert_int_equal(vm_status_look(&dirs, "gone", &s), 0);
	assert_string_equal(s.state, "created");
	vm_status_finish(&s);

	assert_int_equal(runtime_dir_lock(&dirs, "gone", &rt, holder), 0);
	dir = runtime_dir_begin(&rt, name);
	assert_true(dir >= 0);
	assert_int_equal(vm_status_look(&dirs, "gone", &s), 0);
	assert_string_equal(s.state, "starting");
	vm_status_finish(&s);
	assert_int_equal(file_write_at(dir, "console", "last words\n", 11, 0600), 0);
	assert_int_equal(runtime_dir_sweep(&dirs, "gone"), -EBUSY);
	{
		struct runtime_dir second;

		assert_int_equal(runtime_dir_lock(&dirs, "gone", &second, holder), -EBUSY);
		assert_int_equal(atoi(holder), getpid());
	}
	close(dir);
	close(rt.fd);
	close(rt.lock_fd);

	assert_int_equal(runtime_dir_sweep(&dirs, "gone"), 1);
	assert_int_equal(runtime_dir_sweep(&dirs, "gone"), 0);
	assert_int_equal(vm_status_look(&dirs, "gone", &s), 0);
	assert_string_equal(s.state, "stopped");
	assert_string_equal(s.outcome, "crashed");
	vm_status_finish(&s);

	/* one that was not to be kept goes altogether */
	make_vm(&dirs, "brief", false);
	assert_int_equal(runtime_dir_lock(&dirs, "brief", &rt, holder), 0);
	dir = runtime_dir_begin(&rt, name);
	close(dir);
	close(rt.fd);
	close(rt.lock_fd);
	assert_int_equal(runtime_dir_sweep(&dirs, "brief"), 1);
	assert_int_equal(vm_status_look(&dirs, "brief", &s), -ENOENT);
	vm_dirs_finish(&dirs);
}

static void services(void **state)
{
	static const char *const bad_connects[] = { "", "1", "1:", "1:a", "1:a:", ":a:1", "0:a:1",
		"1:a:0", "1023:a:1", "1:a:1023", "4294967295:a:1", "1:a:4294967295", "1:..:1",
		"1:a/b:1", "1:a:1:1", "-1:a:1", " 1:a:1" };
	static const char *const bad_accepts[] = { "", ":a", "0", "1023", "4294967295",
		"1:", "1:-a", "1:a:b", "x" };
	char *rules[] = { (char *)"80", (char *)"9050:work", (char *)"broken:", (char *)"22:a.b",
		NULL };
	struct vm_connect c;
	struct vm_accept a;
	const char *reason;

	assert_int_equal(vm_connect_parse("9050:tor.x-1:1", &c, &reason), 0);
	assert_int_equal(c.port, 9050);
	assert_int_equal(c.peer_port, 1);
	assert_string_equal(c.peer, "tor.x-1");
	assert_int_equal(vm_connect_parse("4294967294:a:4294967294", &c, &reason), 0);
	assert_int_equal(vm_connect_parse("1:unix:/run/x", &c, &reason), -EOPNOTSUPP);
	for (size_t i = 0; i < ARRAY_SIZE(bad_connects); i++) {
		reason = NULL;
		assert_int_equal(vm_connect_parse(bad_connects[i], &c, &reason), -EINVAL);
		assert_non_null(reason);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad_accepts); i++)
		assert_int_equal(vm_accept_parse(bad_accepts[i], &a, &reason), -EINVAL);
	assert_true(vm_accept_allows(rules, "anybody", 80));
	assert_true(vm_accept_allows(rules, "work", 9050));
	assert_false(vm_accept_allows(rules, "evil", 9050));
	assert_false(vm_accept_allows(rules, "wor", 9050));
	assert_false(vm_accept_allows(rules, "work", 80 + (1 << 16)));
	assert_false(vm_accept_allows(rules, "anybody", 22));
	assert_false(vm_accept_allows(NULL, "work", 9050));
}

static void mounts_in_a_status(void **state)
{
	struct vm_status s = { .state = strdup("running") }, t;
	struct json_object *o;

	assert_int_equal(vm_status_add_mount(&s, "/mnt/a", "share", "/srv", "mounted"), 0);
	for (int i = 0; i < VM_STATUS_MOUNTS_MAX; i++) /* one too many is left out */
		assert_int_equal(vm_status_add_mount(&s, "/b", "image", "b:1", "lost"), 0);
	o = vm_status_to_json(&s);
	assert_int_equal(vm_status_from_json(o, &t), 0);
	assert_int_equal(t.n_mounts, VM_STATUS_MOUNTS_MAX);
	assert_string_equal(t.mounts[0].path, "/mnt/a");
	assert_string_equal(t.mounts[0].source, "/srv");
	assert_string_equal(t.mounts[7].state, "lost");
	json_object_put(o);
	vm_status_finish(&t);
	vm_status_drop_mounts(&s);
	o = vm_status_to_json(&s);
	assert_false(json_object_object_get_ex(o, "mounts", NULL));
	json_object_object_add(o, "mounts", json_object_new_string("none"));
	assert_int_equal(vm_status_from_json(o, &t), -EINVAL);
	json_object_put(o);
	vm_status_finish(&s);
}

static void which_virtiofsd(void **state)
{
	static const struct {
		const char *said;
		enum vm_virtiofsd which;
	} cases[] = {
		{ "virtiofsd version 7.2.22 (Debian 1:7.2+dfsg-7)\nCopyright", VM_VIRTIOFSD_QEMU },
		{ "virtiofsd 1.13.2\n", VM_VIRTIOFSD_RUST },
		{ "virtiofsd backend 1.1.0\n", VM_VIRTIOFSD_RUST },
		{ "virtiofsd\n", VM_VIRTIOFSD_UNKNOWN },
		{ "virtiofsd backend\n", VM_VIRTIOFSD_UNKNOWN },
		{ "", VM_VIRTIOFSD_UNKNOWN },
		{ "error: unknown option", VM_VIRTIOFSD_UNKNOWN },
	};
	char *path = NULL;
	const char *next;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		assert_int_equal(vm_virtiofsd_tell(cases[i].said), cases[i].which);
	for (enum vm_virtiofsd v = VM_VIRTIOFSD_UNKNOWN; v <= VM_VIRTIOFSD_RUST; v++)
		assert_int_equal(vm_virtiofsd_named(vm_virtiofsd_name(v)), v);
	assert_non_null(vm_virtiofsd_fault(VM_VIRTIOFSD_UNKNOWN, &next));
	assert_null(vm_virtiofsd_fault(VM_VIRTIOFSD_RUST, &next));
	setenv(VM_VIRTIOFSD_ENV, "/nowhere/virtiofsd", 1);
	assert_int_equal(vm_virtiofsd_find(&path), -ENOENT);
	setenv(VM_VIRTIOFSD_ENV, "/bin/sh", 1);
	assert_int_equal(vm_virtiofsd_find(&path), 0);
	assert_string_equal(path, "/bin/sh");
	free(path);
	unsetenv(VM_VIRTIOFSD_ENV);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(services),
		cmocka_unit_test(names),
		cmocka_unit_test(spec_round_trip),
		cmocka_unit_test(spec_refuses),
		cmocka_unit_test(cpu_models),
		cmocka_unit_test(plan_prints_quoted),
		cmocka_unit_test(lock_is_shared_by_inheritance),
		cmocka_unit_test(numbers_are_kept_and_differ),
		cmocka_unit_test(sweep),
		cmocka_unit_test(mounts_in_a_status),
		cmocka_unit_test(which_virtiofsd),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
