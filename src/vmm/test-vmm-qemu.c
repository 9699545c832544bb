/* QEMU as a back-end, over a socketpair: what it says at the wrong time, or instead of what it should say. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "sockun.h"
#include "unit.h"
#include "vmm.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define RETURN   "{\"return\": {}}\r\n"
#define ERROR    "{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\r\n"
#define SAVED    "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}\r\n"

struct fixture {
	sd_event *event;
	struct vmm *vmm;
	int server, dir;
	char path[32];
	int n_done, error;
};

static void on_vmm(struct vmm *vmm, enum vmm_event event, const char *detail, void *userdata)
{
}

static void on_done(struct vmm *vmm, int error, const char *reason, void *userdata)
{
	struct fixture *f = userdata;

	f->n_done++;
	f->error = error;
}

static void say(struct fixture *f, const char *text)
{
	assert_int_equal(fd_write_all(f->server, text, strlen(text)), 0);
	while (sd_event_run(f->event, 10 * 1000) > 0)
		;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	int pair[2];

	*state = f;
	snprintf(f->path, sizeof f->path, "/tmp/uvms-test-XXXXXX");
	if (!mkdtemp(f->path) || sd_event_new(&f->event) < 0 || sockun_pair(SOCK_STREAM, pair) < 0)
		return -1;
	f->server = pair[1];
	f->dir = open(f->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (vmm_attach_consume(vmm_backend_find("qemu"), f->event,
		    &(struct vmm_channels){ pair[0], -EBADF, -EBADF, -EBADF }, NULL, on_vmm, f,
		    &f->vmm) < 0)
		return -1;
	say(f, GREETING);
	say(f, RETURN);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	vmm_destroy(f->vmm);
	fd_close(f->server);
	fd_close(f->dir);
	sd_event_unref(f->event);
	(void)file_remove_tree_at(AT_FDCWD, f->path);
	free(f);
	return 0;
}

static void operate(struct fixture *f, enum vmm_op_kind kind)
{
	struct vmm_op op = { .kind = kind, .fd = f->dir };

	assert_int_equal(vmm_operate(f->vmm, &op, on_done, f), 0);
}

/* All of its commands are accepted. */
static void save(struct fixture *f)
{
	operate(f, VMM_OP_SNAPSHOT);
	for (int i = 0; i < 4; i++)
		say(f, RETURN);
	assert_int_equal(f->n_done, 0);
}

static void test_save_is_over_when_it_can_go_on(void **state)
{
	struct fixture *f = *state;

	save(f);
	say(f, SAVED);
	say(f, "{\"return\": {\"status\": \"finish-migrate\"}}\r\n");
	assert_int_equal(f->n_done, 0);
	say(f, "{\"return\": {\"status\": \"postmigrate\"}}\r\n");
	assert_int_equal(f->n_done, 1);
	assert_int_equal(f->error, 0);
}

static void test_save_that_cannot_be_asked_about(void **state)
{
	struct fixture *f = *state;

	save(f);
	say(f, SAVED);
	say(f, ERROR);
	assert_int_equal(f->n_done, 1);
	assert_int_equal(f->error, -EIO);
	/* that is over: what comes next has an end of its own */
	operate(f, VMM_OP_RESUME);
	say(f, RETURN);
	assert_int_equal(f->n_done, 2);
	assert_int_equal(f->error, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			test_save_is_over_when_it_can_go_on, setup, teardown),
		cmocka_unit_test_setup_teardown(
			test_save_that_cannot_be_asked_about, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
