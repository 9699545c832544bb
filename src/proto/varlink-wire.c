#include "varlink-wire.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "json-codec.h"

static int varlink_get_name(struct json_object *v, char out[static VARLINK_NAME_MAX + 1])
{
	const char *s;

	if (!json_object_is_type(v, json_type_string))
		return -EBADMSG;
	s = json_object_get_string(v);
	if (strlen(s) > VARLINK_NAME_MAX || strlen(s) != (size_t)json_object_get_string_len(v))
		return -EBADMSG;
	strcpy(out, s);
	return 0;
}

static int varlink_get_flag(struct json_object *v, bool *ret)
{
	if (!json_object_is_type(v, json_type_boolean))
		return -EBADMSG;
	*ret = json_object_get_boolean(v);
	return 0;
}

static int varlink_get_parameters(struct json_object *v, struct json_object **ret)
{
	if (!json_object_is_type(v, json_type_object))
		return -EBADMSG;
	*ret = json_object_get(v);
	return 0;
}

static int varlink_call_field(struct varlink_call *c, const char *key, struct json_object *v)
{
	if (strcmp(key, "method") == 0)
		return varlink_get_name(v, c->method);
	if (strcmp(key, "parameters") == 0)
		return v ? varlink_get_parameters(v, &c->parameters) : 0;
	if (strcmp(key, "more") == 0)
		return v ? varlink_get_flag(v, &c->more) : 0;
	if (strcmp(key, "oneway") == 0)
		return v ? varlink_get_flag(v, &c->oneway) : 0;
	return 0; /* "upgrade" and what may come: not for us */
}

int varlink_call_decode(const char *text, size_t len, struct varlink_call *ret)
{
	CLEANUP(json_codec_putp) struct json_object *obj = NULL;
	struct varlink_call c = { 0 };
	int r;

	r = json_codec_parse(text, len, &obj);
	if (r == 0 && !json_object_is_type(obj, json_type_object))
		r = -EBADMSG;
	if (r < 0)
		return r;
	json_object_object_foreach(obj, key, value)
	{
		if (r == 0)
			r = varlink_call_field(&c, key, value);
	}
	if (r == 0 && !c.method[0])
		r = -EBADMSG;
	if (r < 0) {
		varlink_call_finish(&c);
		return r;
	}
	*ret = c;
	return 0;
}

static int varlink_reply_field(struct varlink_reply *r, const char *key, struct json_object *v)
{
	if (strcmp(key, "error") == 0)
		return v ? varlink_get_name(v, r->error) : 0;
	if (strcmp(key, "parameters") == 0)
		return v ? varlink_get_parameters(v, &r->parameters) : 0;
	if (strcmp(key, "continues") == 0)
		return v ? varlink_get_flag(v, &r->continues) : 0;
	return 0;
}

int varlink_reply_decode(const char *text, size_t len, struct varlink_reply *ret)
{
	CLEANUP(json_codec_putp) struct json_object *obj = NULL;
	struct varlink_reply reply = { 0 };
	int r;

	r = json_codec_parse(text, len, &obj);
	if (r == 0 && !json_object_is_type(obj, json_type_object))
		r = -EBADMSG;
	if (r < 0)
		return r;
	json_object_object_foreach(obj, key, value)
	{
		if (r == 0)
			r = varlink_reply_field(&reply, key, value);
	}
	if (r < 0) {
		varlink_reply_finish(&reply);
		return r;
	}
	*ret = reply;
	return 0;
}

/* Prints OBJ, which is consumed. */
static int varlink_print_consume(struct json_object *obj, char **ret_text, size_t *ret_len)
{
	CLEANUP(json_codec_putp) struct json_object *owned = obj;
	const char *text;
	size_t len;
	char *copy;

	text = json_object_to_json_string_length(
		owned, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	if (!text)
		return -ENOMEM;
	if (len + 1 > VARLINK_MESSAGE_MAX)
		return -EMSGSIZE;
	copy = malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, text, len + 1);
	*ret_text = copy;
	*ret_len = len + 1;
	return 0;
}

int varlink_call_encode(const struct varlink_call *c, char **ret_text, size_t *ret_len)
{
	struct json_object *obj = json_object_new_object();

	if (!obj)
		return -ENOMEM;
	json_object_object_add(obj, "method", json_object_new_string(c->method));
	if (c->parameters)
		json_object_object_add(obj, "parameters", json_object_get(c->parameters));
	if (c->more)
		json_object_object_add(obj, "more", json_object_new_boolean(true));
	if (c->oneway)
		json_object_object_add(obj, "oneway", json_object_new_boolean(true));
	return varlink_print_consume(obj, ret_text, ret_len);
}

int varlink_reply_encode(const struct varlink_reply *r, char **ret_text, size_t *ret_len)
{
	struct json_object *obj = json_object_new_object();

	if (!obj)
		return -ENOMEM;
	if (r->error[0])
		json_object_object_add(obj, "error", json_object_new_string(r->error));
	json_object_object_add(obj, "parameters",
		r->parameters ? json_object_get(r->parameters) : json_object_new_object());
	if (r->continues)
		json_object_object_add(obj, "continues", json_object_new_boolean(true));
	return varlink_print_consume(obj, ret_text, ret_len);
}

void varlink_call_finish(struct varlink_call *c)
{
	json_object_put(c->parameters);
	c->parameters = NULL;
}

void varlink_reply_finish(struct varlink_reply *r)
{
	json_object_put(r->parameters);
	r->parameters = NULL;
}
