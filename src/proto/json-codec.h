/*
 * JSON ↔ structs by a table of fields, on top of json-c.
 *
 * Text from outside is parsed strictly (one value, depth ≤ 16, no \u0000, a stated size limit) and
 * decoded into a struct; only the struct is acted on and re-serialised, received text is never
 * passed on. (json-c keeps the last of duplicate keys and saturates big integers: harmless here.)
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct json_object;

enum json_codec_type {
	JSON_STR,  /* char *, owned; NULL is absent */
	JSON_STRV, /* char **, owned */
	JSON_U64,
	JSON_U32,
	JSON_BOOL, /* bool */
	JSON_FD,   /* int, a descriptor's number; negative is absent */
};

struct json_field {
	const char *name;
	enum json_codec_type type;
	size_t offset;
	uint64_t max; /* numbers: largest value; strings: bytes; vectors: entries. 0: 4096 or all */
};

#define JSON_FIELD(s, field, t, ...)                                                               \
	{                                                                                          \
		.name = #field, .type = t, .offset = offsetof(s, field), __VA_ARGS__               \
	}

/* Parses exactly one value. -EBADMSG: not JSON, too deep, or a \u0000 in it. Free by json_object_put(). */
int json_codec_parse(const char *text, size_t len, struct json_object **ret);

/*
 * Fills the zero-initialised *S. Unknown keys, wrong types and values above max are -EINVAL with
 * *RET_BAD naming the key (borrowed from OBJ). On failure S may be half filled: free it all the same.
 */
int json_codec_decode(struct json_object *obj, const struct json_field *fields, size_t n, void *s,
	const char **ret_bad);

/* NULL: out of memory. NULL strings and vectors are left out. */
struct json_object *json_codec_encode(const struct json_field *fields, size_t n, const void *s);

/* Frees the owned strings and vectors of *S and zeroes them. */
void json_codec_release(const struct json_field *fields, size_t n, void *s);

/* json_object_put() that fits CLEANUP(). */
void json_codec_putp(struct json_object **p);
