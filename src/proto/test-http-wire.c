#include "http-wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "unit.h"

static int get(const char *text, struct http_reply *ret)
{
	return http_wire_reply(text, strlen(text), ret);
}

static void requests(void **state)
{
	CLEANUP_FREE char *plain = NULL, *with = NULL, *large = calloc(1, HTTP_WIRE_BODY_MAX + 2);
	size_t len;

	assert_int_equal(http_wire_request("GET", "/api/v1/vmm.ping", NULL, &plain, &len), 0);
	assert_string_equal(
		plain, "GET /api/v1/vmm.ping HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n");
	assert_int_equal(len, strlen(plain));
	assert_int_equal(http_wire_request("PUT", "/x", "{}", &with, &len), 0);
	assert_non_null(strstr(with, "\r\nContent-Length: 2\r\n\r\n{}"));
	memset(large, ' ', HTTP_WIRE_BODY_MAX + 1);
	assert_int_equal(http_wire_request("PUT", "/x", large, &plain, &len), -EMSGSIZE);
}

/* As the real one sends them: no reason, a space or not before the end of the line. */
static void replies(void **state)
{
	struct http_reply r;

	assert_int_equal(get("HTTP/1.1 204 \r\nServer: Cloud Hypervisor API\r\n"
			     "Connection: keep-alive\r\n\r\n",
				 &r),
		1);
	assert_int_equal(r.status, 204);
	assert_int_equal(r.body_len, 0);
	assert_int_equal(get("HTTP/1.1 503\r\nContent-Length: 2\r\n\r\n{}rest", &r), 1);
	assert_int_equal(r.status, 503);
	assert_int_equal(r.body_len, 2);
	assert_memory_equal(r.body, "{}", 2);
	assert_int_equal(r.total_len, strlen("HTTP/1.1 503\r\nContent-Length: 2\r\n\r\n{}"));
	assert_int_equal(
		get("HTTP/1.1 100 \r\n\r\nHTTP/1.1 200 \r\ncontent-length:0 \r\n\r\n", &r), 1);
	assert_int_equal(r.status, 200);
}

static void halves(void **state)
{
	static const char whole[] = "HTTP/1.1 200 \r\nContent-Type: "
				    "application/json\r\nContent-Length: 5\r\n\r\n{\"a\"}";
	struct http_reply r;

	for (size_t n = 0; n < sizeof whole - 1; n++)
		assert_int_equal(http_wire_reply(whole, n, &r), 0);
	assert_int_equal(http_wire_reply(whole, sizeof whole - 1, &r), 1);
}

static void nonsense(void **state)
{
	static const char *const bad[] = {
		"\r\n\r\n",
		"hello", /* at once: no more of it is waited for */
		"HTTP/1.0",
		"http/1.1 ",
		"HTTP/1.0 200 OK\r\n\r\n",
		"HTTP/1.1 20 \r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 2000\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 099 \r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 \r\n\r\n",
		"HTTP/1.1 200 \r\nContent-Length: \r\n\r\n",
		"HTTP/1.1 200 \r\nContent-Length: -1\r\n\r\n",
		"HTTP/1.1 200 \r\nContent-Length: 0x1\r\n\r\n",
		"HTTP/1.1 200 \r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
		"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 \r\nno colon\r\n\r\n",
		"HTTP/1.1 200 \r\n: empty\r\n\r\n",
		"HTTP/1.1 200 \r\nContent-Length : 0\r\n\r\n",
		"HTTP/1.1 204 \r\nContent-Length: 1\r\n\r\nx",
	};
	struct http_reply r;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (get(bad[i], &r) != -EBADMSG)
			fail_msg("%s", bad[i]);
	}
}

static void limits(void **state)
{
	CLEANUP_FREE char *endless = malloc(HTTP_WIRE_HEAD_MAX + 64);
	struct http_reply r;

	assert_int_equal(get("HTTP/1.1 200 \r\nContent-Length: 1073741824\r\n\r\n", &r), -EMSGSIZE);
	assert_int_equal(
		get("HTTP/1.1 200 \r\nContent-Length: 99999999999999999999\r\n\r\n", &r), -EBADMSG);
	memset(endless, 'x', HTTP_WIRE_HEAD_MAX + 64);
	memcpy(endless, "HTTP/1.1 200 ", 13);
	assert_int_equal(http_wire_reply(endless, HTTP_WIRE_HEAD_MAX - 1, &r), 0);
	assert_int_equal(http_wire_reply(endless, HTTP_WIRE_HEAD_MAX + 64, &r), -EMSGSIZE);
	/* and of empty replies that announce another one */
	for (size_t i = 0; i + 16 <= HTTP_WIRE_HEAD_MAX + 64; i += 16)
		memcpy(endless + i, "HTTP/1.1 100\r\n\r\n", 16);
	assert_int_equal(http_wire_reply(endless, HTTP_WIRE_HEAD_MAX + 64, &r), -EMSGSIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests),
		cmocka_unit_test(replies),
		cmocka_unit_test(halves),
		cmocka_unit_test(nonsense),
		cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
