#include "ch-event-wire.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>

#include "cleanup.h"
#include "json-codec.h"

static const char *ch_text(struct json_object *o, const char *key)
{
	struct json_object *v;

	if (!json_object_is_type(o, json_type_object) || !json_object_object_get_ex(o, key, &v) ||
		!json_object_is_type(v, json_type_string))
		return "";
	return json_object_get_string(v);
}

/* Cut to fit: a name that is longer is none of those that are known. */
static void ch_decode(const char *text, size_t len, struct ch_event *ret)
{
	CLEANUP(json_codec_putp) struct json_object *o = NULL;
	struct json_object *properties = NULL;

	*ret = (struct ch_event){ 0 };
	if (json_codec_parse(text, len, &o) < 0 || !json_object_is_type(o, json_type_object))
		return;
	json_object_object_get_ex(o, "properties", &properties);
	snprintf(ret->source, sizeof ret->source, "%s", ch_text(o, "source"));
	snprintf(ret->event, sizeof ret->event, "%s", ch_text(o, "event"));
	snprintf(ret->id, sizeof ret->id, "%s", ch_text(properties, "id"));
}

ssize_t ch_event_next(const char *bytes, size_t len, struct ch_event *ret)
{
	const char *end = memmem(bytes, len < CH_EVENT_MAX ? len : CH_EVENT_MAX, "\n\n", 2);

	if (!end)
		return len < CH_EVENT_MAX ? 0 : -EMSGSIZE;
	ch_decode(bytes, (size_t)(end - bytes), ret);
	return end + 2 - bytes;
}
