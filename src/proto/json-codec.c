#include "json-codec.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"

#define JSON_DEPTH_MAX   16
#define JSON_STR_DEFAULT 4096
#define JSON_STRV_MAX    1024

void json_codec_putp(struct json_object **p)
{
	json_object_put(*p);
}

int json_codec_parse(const char *text, size_t len, struct json_object **ret)
{
	struct json_tokener *t;
	struct json_object *obj;
	int r = 0;

	/* json-c cuts keys at \u0000: refuse it before it can hide anything */
	if (len > INT32_MAX || memchr(text, 0, len) || memmem(text, len, "\\u0000", 6))
		return -EBADMSG;
	t = json_tokener_new_ex(JSON_DEPTH_MAX);
	if (!t)
		return -ENOMEM;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	obj = json_tokener_parse_ex(t, text, (int)len);
	if (!obj && json_tokener_get_error(t) == json_tokener_continue)
		obj = json_tokener_parse_ex(t, "", 1); /* the NUL ends a number at the text's end */
	if (!obj)
		r = -EBADMSG;
	json_tokener_free(t);
	if (r == 0)
		*ret = obj;
	return r;
}

static void *json_slot(const struct json_field *f, void *s)
{
	return (char *)s + f->offset;
}

static int json_decode_str(const struct json_field *f, struct json_object *v, char **slot)
{
	size_t max = f->max ? f->max : JSON_STR_DEFAULT;

	if (!json_object_is_type(v, json_type_string) ||
		(size_t)json_object_get_string_len(v) > max)
		return -EINVAL;
	return str_set(slot, json_object_get_string(v));
}

static int json_decode_strv(const struct json_field *f, struct json_object *v, char ***slot)
{
	size_t n, max = f->max ? f->max : JSON_STRV_MAX;
	int r = 0;

	if (!json_object_is_type(v, json_type_array))
		return -EINVAL;
	n = json_object_array_length(v);
	if (n > max)
		return -EINVAL;
	for (size_t i = 0; i < n && r >= 0; i++) {
		struct json_object *e = json_object_array_get_idx(v, i);

		if (!json_object_is_type(e, json_type_string))
			return -EINVAL;
		r = strv_push(slot, json_object_get_string(e));
	}
	return r;
}

static int json_decode_number(const struct json_field *f, struct json_object *v, uint64_t *ret)
{
	uint64_t max = f->type == JSON_U32 ? UINT32_MAX : f->type == JSON_FD ? INT_MAX : UINT64_MAX;

	if (!json_object_is_type(v, json_type_int))
		return -EINVAL;
	if (json_object_get_int64(v) < 0)
		return -EINVAL;
	if (f->max)
		max = f->max;
	*ret = json_object_get_uint64(v);
	return *ret > max ? -EINVAL : 0;
}

static int json_decode_field(const struct json_field *f, struct json_object *v, void *slot)
{
	uint64_t number;
	int r;

	switch (f->type) {
	case JSON_STR: return json_decode_str(f, v, slot);
	case JSON_STRV: return json_decode_strv(f, v, slot);
	case JSON_BOOL:
		if (!json_object_is_type(v, json_type_boolean))
			return -EINVAL;
		*(bool *)slot = json_object_get_boolean(v);
		return 0;
	case JSON_U32:
	case JSON_FD:
	case JSON_U64: break;
	}
	r = json_decode_number(f, v, &number);
	if (r < 0)
		return r;
	if (f->type == JSON_U32)
		*(uint32_t *)slot = (uint32_t)number;
	else if (f->type == JSON_FD)
		*(int *)slot = (int)number;
	else
		*(uint64_t *)slot = number;
	return 0;
}

/* Beginning with the field behind *LAST, as we write them in order ourselves. */
static const struct json_field *json_find(
	const struct json_field *f, size_t n, const char *name, size_t *last)
{
	for (size_t i = 1; i <= n; i++) {
		size_t at = (*last + i) % n;

		if (!str_eq(f[at].name, name))
			continue;
		*last = at;
		return &f[at];
	}
	return NULL;
}

int json_codec_decode(struct json_object *obj, const struct json_field *fields, size_t n, void *s,
	const char **ret_bad)
{
	const char *bad = "(not an object)";
	size_t last = n - 1;
	int r = 0;

	if (!json_object_is_type(obj, json_type_object))
		r = -EINVAL;
	else {
		json_object_object_foreach(obj, key, value)
		{
			const struct json_field *f = json_find(fields, n, key, &last);

			if (r < 0 || (f && !value))
				continue; /* null is absent */
			r = f ? json_decode_field(f, value, json_slot(f, s)) : -EINVAL;
			if (r < 0)
				bad = key;
		}
	}
	if (r < 0 && ret_bad)
		*ret_bad = bad;
	return r;
}

static struct json_object *json_encode_strv(char *const *v)
{
	struct json_object *array = json_object_new_array();

	for (; array && *v; v++) {
		struct json_object *s = json_object_new_string(*v);

		if (s && json_object_array_add(array, s) == 0)
			continue;
		json_object_put(s);
		json_object_put(array);
		return NULL;
	}
	return array;
}

static bool json_field_is_absent(const struct json_field *f, const void *slot)
{
	if (f->type == JSON_FD)
		return *(const int *)slot < 0;
	return (f->type == JSON_STR || f->type == JSON_STRV) && !*(void *const *)slot;
}

static struct json_object *json_encode_field(const struct json_field *f, const void *slot)
{
	switch (f->type) {
	case JSON_STR: return json_object_new_string(*(char *const *)slot);
	case JSON_STRV: return json_encode_strv(*(char **const *)slot);
	case JSON_BOOL: return json_object_new_boolean(*(const bool *)slot);
	case JSON_U32: return json_object_new_uint64(*(const uint32_t *)slot);
	case JSON_U64: return json_object_new_uint64(*(const uint64_t *)slot);
	case JSON_FD: return json_object_new_int(*(const int *)slot);
	}
	return NULL;
}

struct json_object *json_codec_encode(const struct json_field *fields, size_t n, const void *s)
{
	struct json_object *obj = json_object_new_object();

	for (size_t i = 0; obj && i < n; i++) {
		const void *slot = (const char *)s + fields[i].offset;
		struct json_object *v;

		if (json_field_is_absent(&fields[i], slot))
			continue;
		v = json_encode_field(&fields[i], slot);
		if (v && json_object_object_add(obj, fields[i].name, v) == 0)
			continue;
		/* all or nothing: a field that is left out means something else */
		json_object_put(v);
		json_object_put(obj);
		return NULL;
	}
	return obj;
}

void json_codec_release(const struct json_field *fields, size_t n, void *s)
{
	for (size_t i = 0; i < n; i++) {
		void *slot = json_slot(&fields[i], s);

		if (fields[i].type == JSON_STR) {
			free(*(char **)slot);
			*(char **)slot = NULL;
		} else if (fields[i].type == JSON_STRV) {
			strv_free(*(char ***)slot);
			*(char ***)slot = NULL;
		}
	}
}
