/* Operations with a QEMU that a test plays over a socketpair. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "cleanup.h"
#include "fd.h"
#include "sockun.h"
#include "str.h"
#include "unit.h"
#include "vmm.h"

#define OK "{\"return\": {}}\n"
#define NOT_FOUND                                                                                  \
	"{\"error\": {\"class\": \"DeviceNotFound\", \"desc\": \"Device 'v-data' not found\"}}\n"
#define NO_NODE     "{\"error\": {\"class\": \"GenericError\", \"desc\": \"Failed to find node\"}}\n"
#define OK_FD       "{\"return\": {\"fdset-id\": 101, \"fd\": 23}}\n"
#define ERROR(desc) "{\"error\": {\"class\": \"GenericError\", \"desc\": \"" desc "\"}}\n"
#define DELETED                                                                                    \
	"{\"event\": \"DEVICE_DELETED\", \"data\": {\"device\": \"v-data\", \"path\": \"/x\"}}\n"

struct fixture {
	sd_event *event;
	struct vmm *vmm;
	int server;
	char done[128]; /* how operations have ended */
};

static void on_vmm(struct vmm *vmm, enum vmm_event event, const char *detail, void *userdata)
{
}

static void on_done(struct vmm *vmm, int error, const char *reason, void *userdata)
{
	struct fixture *f = userdata;
	size_t len = strlen(f->done);

	snprintf(f->done + len, sizeof f->done - len, "%d %s;", error, str_or(reason, "-"));
}

/* What QEMU says; "" is nothing. Then what it is told: of it only which command, and the next answer to that. */
static void say(struct fixture *f, const char *text, const char *command)
{
	char told[1024] = "";

	assert_int_equal(fd_write_all(f->server, text, strlen(text)), 0);
	while (sd_event_run(f->event, 10 * 1000) > 0)
		;
	if (recv(f->server, told, sizeof told - 1, MSG_DONTWAIT) < 0)
		told[0] = 0;
	if (command)
		assert_non_null(strstr(told, command));
	else
		assert_string_equal(told, "");
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct vmm_channels channels = { -EBADF, -EBADF, -EBADF, -EBADF };
	int pair[2];

	*state = f;
	if (sd_event_new(&f->event) < 0 || sockun_pair(SOCK_STREAM, pair) < 0)
		return -1;
	f->server = pair[1];
	channels.control_fd = pair[0];
	if (vmm_attach_consume(
		    vmm_backend_find("qemu"), f->event, &channels, NULL, on_vmm, NULL, &f->vmm) < 0)
		return -1;
	say(f, "{\"QMP\": {}}\n", "qmp_capabilities");
	say(f, OK, NULL);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vmm_destroy(f->vmm);
	fd_close(f->server);
	sd_event_unref(f->event);
	free(f);
	return 0;
}

static int remove_data(struct fixture *f)
{
	return vmm_operate(f->vmm,
		&(struct vmm_op){ .kind = VMM_OP_REMOVE,
			.added = VMM_OP_ADD_DISK,
			.id = "v-data",
			.slot = 1 },
		on_done, f);
}

static void test_removed(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(remove_data(f), 0);
	say(f, "", "device_del");
	say(f, OK, NULL);
	say(f, DELETED, "blockdev-del");
	say(f, OK, "\"fdset-id\":101");
	say(f, OK, NULL);
	assert_string_equal(f->done, "0 -;");
}

static void test_refused(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(remove_data(f), 0);
	say(f, "", "device_del");
	say(f, NO_NODE, NULL);
	assert_string_equal(f->done, "-5 Failed to find node;");
}

/* The guest gave it up after the first detach had ended, or nobody asked it. */
static void test_gone_before(void **state)
{
	struct fixture *f = *state;

	say(f, DELETED, NULL);
	assert_int_equal(remove_data(f), 0);
	say(f, "", "device_del");
	say(f, NOT_FOUND, "blockdev-del");
	say(f, OK, "\"fdset-id\":101");
	say(f, OK, NULL);
	assert_string_equal(f->done, "0 -;");
}

static void test_gone_with_all_behind_it(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(remove_data(f), 0);
	say(f, "", "device_del");
	say(f, NOT_FOUND, "blockdev-del");
	say(f, NO_NODE, "remove-fd");
	say(f, NO_NODE, NULL);
	assert_string_equal(f->done, "0 -;");
	/* and the next one is judged by itself */
	assert_int_equal(remove_data(f), 0);
	say(f, "", "device_del");
	say(f, NO_NODE, NULL);
	assert_string_equal(f->done, "0 -;-5 Failed to find node;");
}

/* What is told one after the other, and what is answered to it: "" ends it. */
struct turn {
	const char *answer, *told;
};

static void talk(struct fixture *f, const struct turn *turns)
{
	for (; turns->answer; turns++)
		say(f, turns->answer, turns->told);
}

static void add(struct fixture *f, enum vmm_op_kind kind)
{
	const struct vmm_op op = { .kind = kind,
		.id = "v-data",
		.serial = "data",
		.mac = "02:00:00:00:00:01",
		.tag = "dir",
		.bytes = 4 << 20,
		.fd = f->server,
		.slot = 1 };

	assert_int_equal(vmm_operate(f->vmm, &op, on_done, f), 0);
}

static void test_disk_is_added(void **state)
{
	static const struct turn turns[] = { { "", "add-fd" }, { OK_FD, "\"/dev/fdset/101\"" },
		{ OK, "\"serial\":\"data\",\"bus\":\"port1\"" }, { OK, NULL }, { NULL } };
	struct fixture *f = *state;

	add(f, VMM_OP_ADD_DISK);
	talk(f, turns);
	assert_string_equal(f->done, "0 -;");
}

static void test_disk_is_taken_back(void **state)
{
	static const struct turn turns[] = { { "", "add-fd" }, { OK_FD, "blockdev-add" },
		{ OK, "device_add" }, { ERROR("no port"), "blockdev-del" }, { OK, "remove-fd" },
		{ OK, NULL }, { NULL } };
	struct fixture *f = *state;

	add(f, VMM_OP_ADD_DISK);
	talk(f, turns);
	assert_string_equal(f->done, "-5 no port;");
}

/* The first error is the one that is told, and all that may be there is taken back. */
static void test_net_is_taken_back(void **state)
{
	static const struct turn turns[] = { { "", "getfd" }, { OK, "netdev_add" },
		{ ERROR("no net"), "device_add" }, { ERROR("no netdev"), "netdev_del" },
		{ ERROR("none"), "\"closefd\",\"arguments\":{\"fdname\":\"v-data\"" }, { OK, NULL },
		{ NULL } };
	struct fixture *f = *state;

	add(f, VMM_OP_ADD_NET);
	talk(f, turns);
	assert_string_equal(f->done, "-5 no net;");
}

/* The path is that of QEMU's own descriptor. */
static void test_pmem_is_added(void **state)
{
	static const struct turn turns[] = { { "", "\"add-fd\",\"arguments\":{\"fdset-id\":101}" },
		{ OK_FD, "\"size\":4194304,\"mem-path\":\"/proc/self/fd/23\",\"share\":true,"
			 "\"readonly\":true" },
		{ OK, "remove-fd" },
		{ OK, "\"virtio-pmem-pci\",\"id\":\"v-data\",\"memdev\":\"v-data\",\"bus\":"
		      "\"port1\"" },
		{ OK, NULL }, { NULL } };
	struct fixture *f = *state;

	add(f, VMM_OP_ADD_PMEM);
	talk(f, turns);
	assert_string_equal(f->done, "0 -;");
}

static void test_pmem_is_taken_back(void **state)
{
	static const struct turn refused[] = { { "", "add-fd" }, { ERROR("no set"), NULL },
		{ NULL } };
	static const struct turn nonsense[] = { { "", "add-fd" },
		{ "{\"return\": {\"fd\": \"/etc\"}}\n", NULL }, { NULL } };
	static const struct turn late[] = { { "", "add-fd" }, { OK_FD, "object-add" },
		{ OK, "remove-fd" }, { OK, "device_add" },
		{ ERROR("not enough space"), "\"object-del\",\"arguments\":{\"id\":\"v-data\"" },
		{ OK, NULL }, { NULL } };
	static const struct turn *const all[] = { refused, nonsense, late };
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		add(f, VMM_OP_ADD_PMEM);
		talk(f, all[i]);
	}
	assert_string_equal(f->done, "-5 no set;-71 -;-5 not enough space;");
}

static int remove_added(struct fixture *f, enum vmm_op_kind added)
{
	const struct vmm_op op = {
		.kind = VMM_OP_REMOVE, .added = added, .id = "v-data", .slot = 1
	};

	return vmm_operate(f->vmm, &op, on_done, f);
}

/* QEMU cannot, and it has to be known what it is. */
static void test_what_stays(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(remove_added(f, VMM_OP_ADD_PMEM), -EOPNOTSUPP);
	assert_int_equal(remove_added(f, VMM_OP_PAUSE), -EINVAL);
	assert_int_equal(remove_added(f, VMM_OP_SNAPSHOT), -EINVAL);
	say(f, "", NULL);
}

static void test_fs_comes_and_goes(void **state)
{
	static const struct turn coming[] = {
		{ "", "\"getfd\",\"arguments\":{\"fdname\":\"v-data\"" },
		{ OK, "\"addr\":{\"type\":\"fd\",\"data\":{\"str\":\"v-data\"" },
		{ OK, "\"vhost-user-fs-pci\",\"id\":\"v-data\",\"chardev\":\"v-data\",\"tag\":"
		      "\"dir\",\"queue-size\":1024,\"bus\":\"port1\"" },
		{ OK, NULL }, { NULL }
	};
	static const struct turn going[] = { { "", "device_del" }, { OK, NULL },
		{ DELETED, "\"chardev-remove\",\"arguments\":{\"id\":\"v-data\"" }, { OK, NULL },
		{ NULL } };
	struct fixture *f = *state;

	add(f, VMM_OP_ADD_FS);
	talk(f, coming);
	assert_int_equal(remove_added(f, VMM_OP_ADD_FS), 0);
	talk(f, going);
	assert_string_equal(f->done, "0 -;0 -;");
}

static void test_fs_is_taken_back(void **state)
{
	static const struct turn turns[] = { { "", "getfd" }, { OK, "chardev-add" },
		{ OK, "device_add" }, { ERROR("no port"), "chardev-remove" }, { OK, "closefd" },
		{ ERROR("no such name"), NULL }, { NULL } };
	struct fixture *f = *state;

	add(f, VMM_OP_ADD_FS);
	talk(f, turns);
	assert_string_equal(f->done, "-5 no port;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_before, setup, teardown),
		cmocka_unit_test_setup_teardown(test_gone_with_all_behind_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_is_added, setup, teardown),
		cmocka_unit_test_setup_teardown(test_disk_is_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_net_is_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pmem_is_added, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pmem_is_taken_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_stays, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fs_comes_and_goes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fs_is_taken_back, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
