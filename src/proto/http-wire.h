/*
 * The part of HTTP/1.1 (RFC 9112) that Cloud Hypervisor's API needs: one request out, one reply in.
 *
 * Pure: bytes ↔ structs. A request always has Content-Length when it has a body, never asks for
 * "100-continue" and never closes; the server (micro_http) knows no chunks. A reply's reason phrase may be
 * missing (micro_http sends "HTTP/1.1 204 "); what its length is must be said once and exactly.
 */
#pragma once

#include <stddef.h>

#define HTTP_WIRE_BODY_MAX                                                                         \
	(48 * 1024) /* of a request: v53 refuses 51,201 bytes, later ones die of 256 KiB */
#define HTTP_WIRE_HEAD_MAX  (8 * 1024)   /* of a reply: status line and header fields */
#define HTTP_WIRE_REPLY_MAX (256 * 1024) /* of a reply: its body */

struct http_reply {
	unsigned status;  /* 200 … 599 */
	const char *body; /* borrowed from the bytes; not terminated */
	size_t body_len;
	size_t total_len; /* of all of the reply */
};

/*
 * METHOD, PATH as in "PUT", "/api/v1/vm.boot"; BODY may be NULL (no body). The request on the heap, *RET_LEN
 * long. -EMSGSIZE: the body is longer than HTTP_WIRE_BODY_MAX.
 */
int http_wire_request(
	const char *method, const char *path, const char *body, char **ret, size_t *ret_len);

/*
 * 1: a whole reply, 0: more is needed, -EBADMSG: this is no reply, -EMSGSIZE: it is larger than the limits.
 * Replies 1xx are skipped.
 */
int http_wire_reply(const char *bytes, size_t len, struct http_reply *ret);
