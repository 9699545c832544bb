/* A fake QMP server over a socketpair: good manners, and every kind of bad ones. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "fd.h"
#include "qmp.h"
#include "sockun.h"
#include "str.h"
#include "unit.h"

#define GREETING "{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n"
#define RETURN   "{\"return\": {}}\r\n"

struct fixture {
	sd_event *event;
	struct qmp *q;
	int server;
	char log[1024];
};

static void on_qmp(struct qmp *q, enum qmp_kind kind, const char *name, struct json_object *data,
	void *userdata)
{
	static const char *const kinds[] = { [QMP_READY] = "ready",
		[QMP_EVENT] = "event",
		[QMP_REPLY] = "reply",
		[QMP_CLOSED] = "closed",
		[QMP_FAULT] = "fault" };
	struct fixture *f = userdata;
	size_t len = strlen(f->log);

	snprintf(f->log + len, sizeof f->log - len, "%s %s;", kinds[kind], str_or(name, "-"));
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	int pair[2];

	*state = f;
	return sd_event_new(&f->event) < 0 || sockun_pair(SOCK_STREAM, pair) < 0 ||
	       ((f->server = pair[1]), qmp_create_consume(f->event, pair[0], on_qmp, f, &f->q)) < 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	qmp_destroy(f->q);
	fd_close(f->server);
	sd_event_unref(f->event);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	while (sd_event_run(f->event, 10 * 1000) > 0)
		;
}

static void say(struct fixture *f, const char *text)
{
	assert_int_equal(fd_write_all(f->server, text, strlen(text)), 0);
	turn(f);
}

static void heard(struct fixture *f, const char *text)
{
	char buf[512] = "";

	assert_true(recv(f->server, buf, sizeof buf - 1, MSG_DONTWAIT) > 0);
	assert_string_equal(buf, text);
}

static void conversation(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(qmp_execute(f->q, "quit"), 0); /* before the greeting: waits */
	say(f, GREETING);
	heard(f, "{\"execute\":\"qmp_capabilities\"}\n");
	say(f, RETURN);
	heard(f, "{\"execute\":\"quit\"}\n");
	say(f, "{\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\n");
	say(f, "{\"error\": {\"class\": \"X\", \"desc\": \"no\"}}\n");
	assert_string_equal(f->log, "ready -;event SHUTDOWN;reply no;");
}

static void byte_by_byte(void **state)
{
	struct fixture *f = *state;

	for (const char *p = GREETING RETURN; *p; p++) {
		assert_int_equal(fd_write_all(f->server, p, 1), 0);
		turn(f);
	}
	assert_string_equal(f->log, "ready -;");
}

static void the_end_is_no_fault(void **state)
{
	struct fixture *f = *state;

	f->server = fd_close(f->server);
	turn(f);
	assert_string_equal(f->log, "closed it closed its control socket;");
	assert_int_equal(qmp_execute(f->q, "quit"), -ENOTCONN);
}

static void nonsense(void **state)
{
	static const char *const bad[] = { "hello\n", "[1]\n", "{\"x\":1}\n", "{\"return\":{}}\n",
		GREETING GREETING, "{\"QMP\":\"\\u0000\"}\n", "{{{{\n", "\x00\n" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		void *s;
		struct fixture *f;

		assert_int_equal(setup(&s), 0);
		f = s;
		assert_int_equal(
			fd_write_all(f->server, bad[i], strlen(bad[i]) + (bad[i][0] == 0) * 2), 0);
		turn(f);
		assert_int_equal(strncmp(f->log, "fault ", 6), 0);
		assert_null(strstr(f->log, ";fault")); /* once */
		teardown(&s);
	}
}

static void an_endless_line(void **state)
{
	struct fixture *f = *state;
	char junk[4096];

	memset(junk, ' ', sizeof junk);
	for (int i = 0; i < 17; i++) {
		(void)send(f->server, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL);
		turn(f);
	}
	assert_string_equal(f->log, "fault a line longer than 64 KiB;");
}

static void silence(void **state)
{
	struct fixture *f = *state;

	say(f, GREETING RETURN);
	assert_int_equal(qmp_execute(f->q, "system_powerdown"), 0);
	sd_event_run(f->event, QMP_REPLY_USEC + 500 * 1000);
	assert_string_equal(f->log, "ready -;fault no reply within 5 s;");
}

/* What the next image of the process does with it; FD is a duplicate, as the old one is there still. */
static void goes_on(struct fixture *f)
{
	struct qmp *next;
	const char *line;
	size_t len;
	int fd;

	assert_int_equal(qmp_save(f->q, &fd, &line, &len), 0);
	assert_int_equal(qmp_restore_consume(f->event, dup(fd), line, len, on_qmp, f, &next), 0);
	qmp_destroy(f->q);
	f->q = next;
}

/* At each byte of an event; not while an answer is due, before the handshake, or after the end. */
static void in_another_image(void **state)
{
	static const char event[] = "{\"event\": \"RESET\"}\n";
	struct fixture *f = *state;
	const char *line;
	size_t len;
	int fd;

	assert_int_equal(qmp_save(f->q, &fd, &line, &len), -EBUSY);
	say(f, GREETING RETURN);
	heard(f, "{\"execute\":\"qmp_capabilities\"}\n");
	for (const char *p = event; *p; p++) {
		assert_int_equal(fd_write_all(f->server, p, 1), 0);
		turn(f);
		goes_on(f);
	}
	assert_string_equal(f->log, "ready -;event RESET;");
	assert_int_equal(qmp_execute(f->q, "quit"), 0);
	heard(f, "{\"execute\":\"quit\"}\n");
	assert_int_equal(qmp_save(f->q, &fd, &line, &len), -EBUSY);
	say(f, RETURN);
	goes_on(f);
	say(f, "junk\n");
	assert_int_equal(qmp_save(f->q, &fd, &line, &len), -EBUSY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(conversation, setup, teardown),
		cmocka_unit_test_setup_teardown(byte_by_byte, setup, teardown),
		cmocka_unit_test_setup_teardown(the_end_is_no_fault, setup, teardown),
		cmocka_unit_test(nonsense),
		cmocka_unit_test_setup_teardown(an_endless_line, setup, teardown),
		cmocka_unit_test_setup_teardown(in_another_image, setup, teardown),
		cmocka_unit_test_setup_teardown(silence, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
