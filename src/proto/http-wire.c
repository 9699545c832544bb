#include "http-wire.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cleanup.h"
#include "str.h"

int http_wire_request(
	const char *method, const char *path, const char *body, char **ret, size_t *ret_len)
{
	size_t len = body ? strlen(body) : 0;
	char *text;

	if (len > HTTP_WIRE_BODY_MAX)
		return -EMSGSIZE;
	if (body)
		text = str_printf("%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n"
				  "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
			method, path, len, body);
	else
		text = str_printf(
			"%s %s HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n", method, path);
	if (!text)
		return -ENOMEM;
	*ret_len = strlen(text);
	*ret = text;
	return 0;
}

#define HTTP_VERSION "HTTP/1.1 "

/* Three digits and then a space or the end of the line. */
static int http_status(const char *line, size_t len, unsigned *ret)
{
	const size_t n = sizeof HTTP_VERSION - 1;
	const char *p = line + n;
	unsigned status = 0;

	if (len < n + 3 || memcmp(line, HTTP_VERSION, n) != 0)
		return -EBADMSG;
	for (int i = 0; i < 3; i++) {
		if (p[i] < '0' || p[i] > '9')
			return -EBADMSG;
		status = status * 10 + (unsigned)(p[i] - '0');
	}
	if ((len > n + 3 && p[3] != ' ') || status < 100 || status > 599)
		return -EBADMSG;
	*ret = status;
	return 0;
}

static int http_length(const char *value, size_t len, size_t *ret)
{
	size_t n = 0;

	while (len > 0 && (value[len - 1] == ' ' || value[len - 1] == '\t'))
		len--;
	if (len == 0 || len > 10)
		return -EBADMSG;
	for (size_t i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9')
			return -EBADMSG;
		n = n * 10 + (size_t)(value[i] - '0');
	}
	if (n > HTTP_WIRE_REPLY_MAX)
		return -EMSGSIZE;
	*ret = n;
	return 0;
}

struct http_head {
	unsigned status;
	size_t body_len;
	bool has_length;
};

static int http_field(struct http_head *h, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	size_t name_len = colon ? (size_t)(colon - line) : 0;
	const char *value = colon ? colon + 1 : NULL;
	size_t n;
	int r;

	if (name_len == 0 || memchr(line, ' ', name_len) || memchr(line, 0, len))
		return -EBADMSG;
	while (value < line + len && (*value == ' ' || *value == '\t'))
		value++;
	if (name_len == 17 && strncasecmp(line, "Transfer-Encoding", name_len) == 0)
		return -EBADMSG;
	if (name_len != 14 || strncasecmp(line, "Content-Length", name_len) != 0)
		return 0;
	r = http_length(value, (size_t)(line + len - value), &n);
	if (r < 0)
		return r;
	if (h->has_length)
		return -EBADMSG;
	h->body_len = n;
	h->has_length = true;
	return 0;
}

/* The head's length, its empty line included; 0: more is needed. */
static ssize_t http_head(const char *bytes, size_t len, struct http_head *ret)
{
	size_t window = len < HTTP_WIRE_HEAD_MAX ? len : HTTP_WIRE_HEAD_MAX, at = 0;
	bool first = true;

	*ret = (struct http_head){ 0 };
	for (;;) {
		const char *line = bytes + at, *end = memmem(line, window - at, "\r\n", 2);
		size_t n = end ? (size_t)(end - line) : 0;
		int r;

		if (first &&
			memcmp(bytes, HTTP_VERSION,
				window < sizeof HTTP_VERSION - 1 ? window
								 : sizeof HTTP_VERSION - 1) != 0)
			return -EBADMSG; /* at once: what follows need not ever hold an end of line */
		if (!end)
			return window == HTTP_WIRE_HEAD_MAX ? -EMSGSIZE : 0;
		at += n + 2;
		if (n == 0)
			return first ? -EBADMSG : (ssize_t)at;
		r = first ? http_status(line, n, &ret->status) : http_field(ret, line, n);
		if (r < 0)
			return r;
		first = false;
	}
}

static bool http_has_no_body(unsigned status)
{
	return status < 200 || status == 204 || status == 304;
}

int http_wire_reply(const char *bytes, size_t len, struct http_reply *ret)
{
	size_t at = 0;

	for (;;) {
		struct http_head h;
		ssize_t n = http_head(bytes + at, len - at, &h);

		if (n <= 0)
			return (int)n;
		at += (size_t)n;
		if (http_has_no_body(h.status)) {
			if (h.body_len > 0)
				return -EBADMSG;
		} else if (!h.has_length) {
			return -EBADMSG; /* a body until the end: its end could not be told from a death */
		}
		if (h.status < 200) {
			if (at > HTTP_WIRE_HEAD_MAX)
				return -EMSGSIZE;
			continue;
		}
		if (len - at < h.body_len)
			return 0;
		*ret = (struct http_reply){ .status = h.status,
			.body = bytes + at,
			.body_len = h.body_len,
			.total_len = at + h.body_len };
		return 1;
	}
}
