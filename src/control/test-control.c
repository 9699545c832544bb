/* Server and client of the control socket against each other, and against bad manners. */
#include <errno.h>
#include <json-c/json.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "cleanup.h"
#include "control-client.h"
#include "control-error.h"
#include "control-server.h"
#include "fd.h"
#include "json-codec.h"
#include "sockun.h"
#include "str.h"
#include "unit.h"

struct fixture {
	sd_event *event;
	struct control_server *server;
	struct control_hooks hooks;
	struct control_call *pending;
	int client, gone, owner_gone;
};

static void echo(struct control_call *c, struct json_object *p, void *userdata)
{
	control_call_reply(c, json_object_get(p), STDIN_FILENO);
}

static void later(struct control_call *c, struct json_object *p, void *userdata)
{
	((struct fixture *)userdata)->pending = c;
}

static void refuse(struct control_call *c, struct json_object *p, void *userdata)
{
	control_call_error(c, -EBUSY, control_error_words("no", "because", "try again"));
}

static const struct control_method methods[] = {
	{ "t.Echo", true, echo },
	{ "t.Later", false, later },
	{ "t.Refuse", true, refuse },
	{ 0 },
};

static void on_gone(struct control_call *c, void *userdata)
{
	((struct fixture *)userdata)->gone++;
}

static void on_owner_gone(void *userdata)
{
	((struct fixture *)userdata)->owner_gone++;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	int pair[2];

	*state = f;
	f->hooks = (struct control_hooks){ methods, "interface t", on_gone, on_owner_gone, f };
	if (sd_event_new(&f->event) < 0 || sockun_pair(SOCK_STREAM, pair) < 0 ||
		control_server_create(f->event, &f->hooks, &f->server) < 0)
		return 1;
	f->client = pair[1];
	return control_server_adopt_consume(f->server, pair[0]) < 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	control_server_destroy(f->server);
	fd_close(f->client);
	sd_event_unref(f->event);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	while (sd_event_run(f->event, 10 * 1000) > 0)
		;
}

static void *serve(void *userdata)
{
	struct fixture *f = userdata;

	for (int i = 0; i < 40; i++)
		sd_event_run(f->event, 10 * 1000);
	return NULL;
}

static void call_and_descriptor(void **state)
{
	CLEANUP(json_codec_putp) struct json_object *reply = NULL;
	struct json_object *p = json_object_new_object();
	struct control_failure failure = { 0 };
	struct fixture *f = *state;
	int fd = -EBADF;
	pthread_t t;

	pthread_create(&t, NULL, serve, f);
	json_object_object_add(p, "x", json_object_new_int(7));
	assert_int_equal(
		control_client_call(f->client, "t.Echo", p, 2000000, &reply, &fd, &failure), 0);
	assert_true(fd >= 0);
	close(fd);
	assert_string_equal(json_object_to_json_string_ext(reply, 0), "{\"x\":7}");
	assert_int_equal(
		control_client_call(f->client, "t.Refuse", NULL, 2000000, NULL, NULL, &failure),
		-EBUSY);
	assert_string_equal(failure.message, "no");
	assert_string_equal(failure.cause, "because");
	control_failure_finish(&failure);
	assert_int_equal(
		control_client_call(f->client, "t.None", NULL, 2000000, NULL, NULL, NULL), -ENOSYS);
	pthread_join(t, NULL);
}

static void say(struct fixture *f, const char *text, size_t len)
{
	assert_int_equal(fd_write_all(f->client, text, len), 0);
	turn(f);
}

static void hear(struct fixture *f, char buf[static 4096])
{
	ssize_t n = recv(f->client, buf, 4095, MSG_DONTWAIT);

	buf[n > 0 ? n : 0] = 0;
}

/* Two calls in one piece: both are answered, in order. */
static void pipelined(void **state)
{
	static const char two[] = "{\"method\":\"t.Refuse\"}\0{\"method\":\"t.Echo\"}";
	struct fixture *f = *state;
	char buf[4096];

	say(f, two, sizeof two);
	hear(f, buf);
	assert_non_null(strstr(buf, "Busy"));
	assert_non_null(strstr(buf + strlen(buf) + 1, "parameters"));
}

static void an_unanswered_call_whose_peer_leaves(void **state)
{
	struct fixture *f = *state;

	say(f, "{\"method\":\"t.Later\"}", 21);
	assert_non_null(f->pending);
	f->client = fd_close(f->client);
	turn(f);
	assert_int_equal(f->gone, 1);
	assert_int_equal(f->owner_gone, 1);
}

static void an_answer_later(void **state)
{
	struct fixture *f = *state;
	char buf[4096];

	say(f, "{\"method\":\"t.Later\"}\0{\"method\":\"t.Refuse\"}", 43);
	control_call_reply(f->pending, NULL, -EBADF);
	turn(f);
	hear(f, buf);
	assert_string_equal(buf, "{\"parameters\":{}}");
	assert_non_null(strstr(buf + strlen(buf) + 1, "Busy"));
}

static void nonsense_costs_the_connection(void **state)
{
	static const char *const bad[] = { "x", "{}", "[]", "{\"method\":7}",
		"{\"method\":\"a\\u0000b\"}", "{\"method\":\"t.Echo\",\"parameters\":[]}",
		"{\"method\":\"t.Echo\",\"more\":1}" };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char buf[4096];
		struct fixture *f;
		void *s;

		assert_int_equal(setup(&s), 0);
		f = s;
		say(f, bad[i], strlen(bad[i]) + 1);
		assert_int_equal(recv(f->client, buf, sizeof buf, MSG_DONTWAIT), 0);
		assert_int_equal(f->owner_gone, 1);
		teardown(&s);
	}
}

static void an_endless_message(void **state)
{
	struct fixture *f = *state;
	char junk[8192];

	memset(junk, 'x', sizeof junk);
	for (int i = 0; i < 40; i++) {
		(void)send(f->client, junk, sizeof junk, MSG_DONTWAIT | MSG_NOSIGNAL);
		turn(f);
	}
	assert_int_equal(f->owner_gone, 1);
}

static void error_table(void **state)
{
	static const int numbers[] = { -EINVAL, -ENOENT, -EBUSY, -ETIMEDOUT, -EOPNOTSUPP,
		-ESHUTDOWN };

	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		assert_int_equal(control_error_number(control_error_name(numbers[i])), numbers[i]);
	assert_int_equal(control_error_number("org.example.Unknown"), -EIO);
	assert_int_equal(control_error_exit(-EBUSY), UVMS_EXIT_BUSY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(call_and_descriptor, setup, teardown),
		cmocka_unit_test_setup_teardown(pipelined, setup, teardown),
		cmocka_unit_test_setup_teardown(
			an_unanswered_call_whose_peer_leaves, setup, teardown),
		cmocka_unit_test_setup_teardown(an_answer_later, setup, teardown),
		cmocka_unit_test(nonsense_costs_the_connection),
		cmocka_unit_test_setup_teardown(an_endless_message, setup, teardown),
		cmocka_unit_test(error_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
