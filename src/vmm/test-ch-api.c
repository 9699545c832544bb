/* The client of Cloud Hypervisor's API, and this test as the server: good manners, and every kind of bad ones. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "ch-api.h"
#include "cleanup.h"
#include "fd.h"
#include "fdpass.h"
#include "sockun.h"
#include "str.h"
#include "unit.h"

#define OK   "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}"
#define NONE "HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\nConnection: keep-alive\r\n\r\n"

struct fixture {
	sd_event *event;
	struct ch_api *api;
	int listener, server; /* ours of the connection; -EBADF: none */
	char log[8192];
};

static void on_end(const struct ch_call *call, enum ch_api_end end, const char *text, size_t len,
	void *userdata)
{
	static const char *const ends[] = { [CH_API_DONE] = "done",
		[CH_API_REFUSED] = "refused",
		[CH_API_LOST] = "lost",
		[CH_API_SILENT] = "silent",
		[CH_API_BAD] = "bad" };
	struct fixture *f = userdata;
	size_t at = strlen(f->log);

	assert_int_equal(strlen(text), len);
	snprintf(f->log + at, sizeof f->log - at, "%s %s %s;", call->name, ends[end], text);
}

static int setup(void **state)
{
	char dir[] = "/tmp/test-ch-api-XXXXXX";
	struct fixture *f = calloc(1, sizeof *f);
	CLEANUP_CLOSE int dir_fd = -EBADF;
	int path_fd;

	*state = f;
	f->server = -EBADF;
	if (!mkdtemp(dir) || sd_event_new(&f->event) < 0)
		return -1;
	dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	f->listener = sockun_listen_unnamed(dir_fd, "api", 0600, 8, &path_fd);
	rmdir(dir);
	return f->listener < 0 || ch_api_create_consume(f->event, path_fd, on_end, f, &f->api) < 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	ch_api_destroy(f->api);
	fd_close(f->server);
	fd_close(f->listener);
	sd_event_unref(f->event);
	free(f);
	return 0;
}

static void turn(struct fixture *f)
{
	while (sd_event_run(f->event, 10 * 1000) > 0)
		;
}

static void call(struct fixture *f, const char *name, const char *body, int fd)
{
	const struct ch_call c = { .method = body ? "PUT" : "GET",
		.name = name,
		.body = body,
		.fd = fd,
		.deadline_usec = 200 * 1000 };

	assert_int_equal(ch_api_call(f->api, &c), 0);
}

/* Takes the next connection. */
static void meet(struct fixture *f)
{
	turn(f);
	fd_close(f->server);
	f->server = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	assert_true(f->server >= 0);
	turn(f);
}

static void nobody_comes(struct fixture *f)
{
	turn(f);
	assert_true(accept4(f->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK) < 0);
}

/* What was asked; the bytes are for the caller to look at. */
static const char *hear(struct fixture *f, char *buf, size_t size)
{
	ssize_t n = recv(f->server, buf, size - 1, MSG_DONTWAIT);

	buf[n < 0 ? 0 : n] = 0;
	return buf;
}

static void hear_of(struct fixture *f, const char *name)
{
	char buf[4096];

	turn(f);
	assert_non_null(strstr(hear(f, buf, sizeof buf), name));
}

static void say(struct fixture *f, const char *text, size_t len)
{
	assert_int_equal(fd_write_all(f->server, text, len), 0);
	turn(f);
}

static void say_text(struct fixture *f, const char *text)
{
	say(f, text, strlen(text));
}

static void logged(struct fixture *f, const char *text)
{
	assert_string_equal(f->log, text);
	f->log[0] = 0;
}

static void conversation(void **state)
{
	struct fixture *f = *state;
	char buf[4096];

	call(f, "vmm.ping", NULL, -EBADF);
	call(f, "vm.create", "{\"a\":1}", -EBADF);
	assert_string_equal(ch_api_current(f->api), "vmm.ping");
	assert_int_equal(ch_api_socket(f->api), -EBUSY);
	meet(f);
	assert_string_equal(hear(f, buf, sizeof buf),
		"GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
	say_text(f, OK); /* and only now the next one, on the same connection */
	logged(f, "vmm.ping done {};");
	assert_string_equal(hear(f, buf, sizeof buf),
		"PUT /api/v1/vm.create HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
		"Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
	say_text(f, NONE);
	logged(f, "vm.create done ;");
	nobody_comes(f);
	assert_null(ch_api_current(f->api));
	assert_true(ch_api_socket(f->api) >= 0);
}

static void byte_by_byte(void **state)
{
	static const char text[] = "HTTP/1.1 100 \r\n\r\n" OK;
	struct fixture *f = *state;

	call(f, "vmm.ping", NULL, -EBADF);
	meet(f);
	for (const char *p = text; *p; p++) {
		assert_string_equal(f->log, "");
		assert_int_equal(fd_write_all(f->server, p, 1), 0);
		sd_event_run(f->event, 1000);
	}
	turn(f);
	logged(f, "vmm.ping done {};");
}

static void a_descriptor_goes_beside(void **state)
{
	struct fixture *f = *state;
	int fds[4] = { -EBADF, -EBADF, -EBADF, -EBADF }, other = open("/dev/null", O_RDONLY);
	size_t n = 4;
	char buf[4096];

	call(f, "vm.add-net", "{}", other);
	meet(f);
	assert_true(fdpass_recv(f->server, buf, sizeof buf, fds, &n) > 0);
	assert_int_equal(n, 1);
	close(fds[0]);
	say_text(f, NONE);
	logged(f, "vm.add-net done ;");
	call(f, "vm.boot", NULL, -EBADF); /* it was for that one call */
	turn(f);
	n = 4;
	assert_true(fdpass_recv(f->server, buf, sizeof buf, fds, &n) > 0);
	assert_int_equal(n, 0);
	close(other);
}

static void errors_are_text(void **state)
{
	static const struct {
		const char *reply, *want;
	} all[] = {
		{ "HTTP/1.1 500 \r\nContent-Length: 13\r\n\r\n[\"a\",\"b\",\"c\"]",
			"vm.boot refused a: b: c;" },
		{ "HTTP/1.1 404 \r\nContent-Length: 13\r\n\r\n[\"Not Found\"]",
			"vm.boot refused Not Found;" },
		{ "HTTP/1.1 400 \r\nContent-Length: 0\r\n\r\n", "vm.boot refused status 400;" },
		{ "HTTP/1.1 503 \r\nContent-Length: 2\r\n\r\n[]", "vm.boot refused status 503;" },
		{ "HTTP/1.1 500 \r\nContent-Length: 4\r\n\r\nno\x1b[",
			"vm.boot refused no\\x1b[;" },
		{ "HTTP/1.1 400 \r\nContent-Length: 19\r\n\r\n{ \"error\": \"a\nb.\" }",
			"vm.boot refused { \"error\": \"a\\x0ab.\" };" },
		{ "HTTP/1.1 500 \r\nContent-Length: 16\r\n\r\n[\"a\\u001b\",7,{}]",
			"vm.boot refused a\\x1b: 7: { };" },
		{ "HTTP/1.1 300 \r\nContent-Length: 0\r\n\r\n", "vm.boot refused status 300;" },
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		call(f, "vm.boot", NULL, -EBADF);
		i == 0 ? meet(f) : hear_of(f, "vm.boot");
		say_text(f, all[i].reply);
		logged(f, all[i].want);
	}
}

/* Each ends the call, and the next one has a connection of its own. */
static void nonsense(void **state)
{
	static const struct {
		const char *reply, *want;
	} all[] = {
		{ "hello\r\n\r\n", "its answer is not HTTP" },
		{ "hello", "its answer is not HTTP" },
		{ "HTTP/1.0 200 OK\r\n\r\n", "its answer is not HTTP" },
		{ "HTTP/1.1 2x0 \r\n\r\n", "its answer is not HTTP" },
		{ "HTTP/1.1 200 \r\n\r\n{}", "its answer is not HTTP" },
		{ "HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n", "its answer is not HTTP" },
		{ "HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n", "its answer is not HTTP" },
		{ "HTTP/1.1 200 \r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
			"its answer is not HTTP" },
		{ "HTTP/1.1 200 \r\nContent-Length: 1073741824\r\n\r\n",
			"its answer is longer than any can be" },
		{ OK OK, "it answered more than it was asked" },
		{ OK "x", "it answered more than it was asked" },
	};
	struct fixture *f = *state;
	char want[128];

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		call(f, "vm.boot", NULL, -EBADF);
		meet(f);
		say_text(f, all[i].reply);
		snprintf(want, sizeof want, "vm.boot bad %s;", all[i].want);
		logged(f, want);
	}
	call(f, "vm.boot", NULL, -EBADF);
	meet(f);
	say(f, "\0\0\0", 3);
	logged(f, "vm.boot bad its answer is not HTTP;");
}

static void endless_headers(void **state)
{
	struct fixture *f = *state;

	call(f, "vm.boot", NULL, -EBADF);
	meet(f);
	say_text(f, "HTTP/1.1 200 \r\n");
	for (int i = 0; i < 2000 && !f->log[0]; i++) {
		(void)send(f->server, "X: y\r\n", 6, MSG_DONTWAIT | MSG_NOSIGNAL);
		sd_event_run(f->event, 0);
	}
	logged(f, "vm.boot bad its answer is longer than any can be;");
}

static void silence(void **state)
{
	struct fixture *f = *state;

	call(f, "vm.boot", NULL, -EBADF);
	call(f, "vmm.ping", NULL, -EBADF);
	meet(f);
	say_text(f, "HTTP/1.1 200 \r\nContent-Len");
	for (int i = 0; i < 100 && !f->log[0]; i++)
		sd_event_run(f->event, 10 * 1000);
	logged(f, "vm.boot silent it does not answer;");
	meet(f); /* the next one does not read that one's reply */
	hear_of(f, "vmm.ping");
	say_text(f, OK);
	logged(f, "vmm.ping done {};");
}

static void the_end_in_a_call(void **state)
{
	struct fixture *f = *state;

	call(f, "vm.boot", NULL, -EBADF);
	meet(f);
	f->server = fd_close(f->server);
	turn(f);
	logged(f, "vm.boot lost it closed the connection without an answer;");
	nobody_comes(f);
}

static void the_end_between_calls(void **state)
{
	struct fixture *f = *state;

	call(f, "vmm.ping", NULL, -EBADF);
	meet(f);
	say_text(f, OK);
	f->server = fd_close(f->server);
	call(f, "vm.boot", NULL, -EBADF);
	meet(f);
	hear_of(f, "vm.boot");
	say_text(f, OK "junk");
	f->log[0] = 0;
	call(f, "vm.boot", NULL,
		-EBADF); /* what nobody asked for is the end of a connection, too */
	meet(f);
	hear_of(f, "vm.boot");
	say_text(f, NONE);
	logged(f, "vm.boot done ;");
}

/* Closed when the next call was under way already: it is made once more, and only once. */
static void the_end_just_then(void **state)
{
	struct fixture *f = *state;

	call(f, "vmm.ping", NULL, -EBADF);
	meet(f);
	say_text(f, OK);
	f->log[0] = 0;
	call(f, "vm.create", "{}", -EBADF);
	turn(f); /* it is sent, and not read */
	f->server = fd_close(f->server);
	meet(f);
	hear_of(f, "vm.create");
	f->server = fd_close(f->server);
	turn(f);
	logged(f, "vm.create lost it closed the connection without an answer;");
	nobody_comes(f);
}

static void nobody_listens(void **state)
{
	struct fixture *f = *state;

	f->listener = fd_close(f->listener);
	call(f, "vmm.ping", NULL, -EBADF);
	turn(f);
	logged(f, "vmm.ping lost Connection refused;");
}

static void nobody_accepts(void **state)
{
	struct fixture *f = *state;

	call(f, "vmm.ping", NULL, -EBADF); /* there is room in the listener's queue */
	for (int i = 0; i < 100 && !f->log[0]; i++)
		sd_event_run(f->event, 10 * 1000);
	logged(f, "vmm.ping silent it does not answer;");
}

static void too_much(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *body = malloc(48 * 1024 + 2);
	const struct ch_call c = { .method = "GET", .name = "vmm.ping", .fd = -EBADF };

	memset(body, ' ', 48 * 1024 + 1);
	body[48 * 1024 + 1] = 0;
	call(f, "vm.create", body, -EBADF);
	turn(f);
	logged(f, "vm.create bad the request is longer than it takes;");
	for (int i = 0; i < CH_API_QUEUE_MAX; i++)
		call(f, "vmm.ping", NULL, -EBADF);
	assert_int_equal(ch_api_call(f->api, &c), -EBUSY);
}

/* More than the socket takes at once goes on when there is room. */
static void a_large_request(void **state)
{
	struct fixture *f = *state;
	CLEANUP_FREE char *body = malloc(48 * 1024 + 1), *got = malloc(64 * 1024);
	size_t len = 0;
	int small = 4096;

	memset(body, 'x', 48 * 1024);
	body[48 * 1024] = 0;
	call(f, "vmm.ping", NULL, -EBADF);
	meet(f);
	assert_int_equal(setsockopt(f->server, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
	say_text(f, OK);
	hear(f, got, 4096);
	call(f, "vm.create", body, -EBADF);
	for (int i = 0; i < 1000 && len < 48 * 1024 + 100; i++) {
		ssize_t n;

		sd_event_run(f->event, 1000);
		n = recv(f->server, got + len, 64 * 1024 - len, MSG_DONTWAIT);
		len += n > 0 ? (size_t)n : 0;
	}
	assert_memory_equal(got + len - 48 * 1024, body, 48 * 1024);
	say_text(f, NONE);
	assert_non_null(strstr(f->log, "vm.create done ;"));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(conversation),
		CASE(byte_by_byte),
		CASE(a_descriptor_goes_beside),
		CASE(errors_are_text),
		CASE(nonsense),
		CASE(endless_headers),
		CASE(silence),
		CASE(the_end_in_a_call),
		CASE(the_end_between_calls),
		CASE(the_end_just_then),
		CASE(nobody_listens),
		CASE(nobody_accepts),
		CASE(too_much),
		CASE(a_large_request),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
