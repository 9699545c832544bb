#include "oci.h"

#include <json-c/json.h>
#include <string.h>

#include "cleanup.h"
#include "str.h"

#define OCI_NAME_MAX 255

static const char lower_digits[] = "abcdefghijklmnopqrstuvwxyz0123456789";
static const char name_bytes[] = "abcdefghijklmnopqrstuvwxyz0123456789._/-";

bool oci_digest_is_valid(const char *digest)
{
	return digest && str_has_prefix(digest, "sha256:") &&
	       strspn(digest + 7, "0123456789abcdef") == 64 && digest[71] == 0;
}

const char *oci_name_problem(const char *name)
{
	size_t n;

	if (!*name || !strchr(lower_digits, *name))
		return "it must begin with a lower-case letter or a digit";
	if (strlen(name) > OCI_NAME_MAX)
		return "it is longer than 255 bytes";
	n = strcspn(name, ":/");
	if (name[n] == ':' && strspn(name + n + 1, "0123456789") == strcspn(name + n + 1, "/") &&
		strchr(name + n, '/')) {
		if (strspn(name, name_bytes) < n)
			return "a registry's name is of a-z, 0-9, '.' and '-'";
		name += n + 1; /* its port */
	}
	n = strspn(name, name_bytes);
	if (name[n] == ':' && name[n + 1]) {
		n++;
		n += str_span_name(name + n, SIZE_MAX);
	}
	return name[n] ? "only a-z, 0-9, '.', '_', '/', '-' and one ':TAG' may be in it" : NULL;
}

char *oci_name_familiar(const char *ref)
{
	static const char *const fronts[] = { "docker.io/", "library/" };
	char *name, *end;

	for (size_t i = 0; i < ARRAY_SIZE(fronts); i++) {
		if (str_has_prefix(ref, fronts[i]))
			ref += strlen(fronts[i]);
	}
	name = strdup(ref);
	if (!name)
		return NULL;
	end = strchr(name, '@');
	if (end)
		*end = 0;
	end = strrchr(name, ':');
	if (str_eq(end, ":latest"))
		*end = 0;
	return name;
}

static struct json_object *member(struct json_object *obj, const char *key, enum json_type type)
{
	struct json_object *v;

	if (!json_object_is_type(obj, json_type_object) ||
		!json_object_object_get_ex(obj, key, &v) || !json_object_is_type(v, type))
		return NULL;
	return v;
}

const char *oci_str(struct json_object *obj, const char *key)
{
	struct json_object *v = member(obj, key, json_type_string);

	return v ? json_object_get_string(v) : NULL;
}

struct json_object *oci_object(struct json_object *obj, const char *key)
{
	return member(obj, key, json_type_object);
}

struct json_object *oci_array(struct json_object *obj, const char *key)
{
	return member(obj, key, json_type_array);
}

const char *oci_annotation(struct json_object *obj, const char *key)
{
	return oci_str(oci_object(obj, "annotations"), key);
}

uint64_t oci_size(struct json_object *descriptor)
{
	struct json_object *v = member(descriptor, "size", json_type_int);

	return v && json_object_get_int64(v) > 0 ? (uint64_t)json_object_get_int64(v) : 0;
}

struct json_object *oci_descriptor(const char *media_type, const char *digest, uint64_t size)
{
	struct json_object *d = json_object_new_object();

	if (!d)
		return NULL;
	json_object_object_add(d, "mediaType", json_object_new_string(media_type));
	json_object_object_add(d, "digest", json_object_new_string(digest));
	json_object_object_add(d, "size", json_object_new_uint64(size));
	return d;
}

void oci_annotate(struct json_object *obj, const char *key, const char *value)
{
	struct json_object *a = oci_object(obj, "annotations");

	if (!a) {
		a = json_object_new_object();
		json_object_object_add(obj, "annotations", a);
	}
	json_object_object_add(a, key, json_object_new_string(value));
}
