/*
 * Varlink messages (varlink.org/Protocol): one JSON object and a NUL byte each.
 *
 * Pure: text ↔ structs. Missing, null and {} parameters are equal. What was received is never passed
 * on: replies are built from structs.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct json_object;

#define VARLINK_MESSAGE_MAX (256 * 1024) /* bytes, NUL included */
#define VARLINK_NAME_MAX    255

struct varlink_call {
	char method[VARLINK_NAME_MAX + 1];
	struct json_object *parameters; /* owned; NULL is {} */
	bool more;
	bool oneway;
};

struct varlink_reply {
	char error[VARLINK_NAME_MAX + 1]; /* "" is success */
	struct json_object *parameters;   /* owned; NULL is {} */
	bool continues;
};

/* LEN without the NUL. -EBADMSG: close the connection. */
int varlink_call_decode(const char *text, size_t len, struct varlink_call *ret);
int varlink_reply_decode(const char *text, size_t len, struct varlink_reply *ret);

/* *RET_TEXT on the heap; *RET_LEN counts the NUL. -EMSGSIZE above VARLINK_MESSAGE_MAX. */
int varlink_call_encode(const struct varlink_call *c, char **ret_text, size_t *ret_len);
int varlink_reply_encode(const struct varlink_reply *r, char **ret_text, size_t *ret_len);

void varlink_call_finish(struct varlink_call *c);
void varlink_reply_finish(struct varlink_reply *r);
