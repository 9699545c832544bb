#include "image-config.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "oci.h"
#include "str.h"

#define CONFIG_STRING_MAX  4096
#define CONFIG_ENTRIES_MAX 1024

/* NULL unless it is a string that may be an argument, a path or an assignment. */
static const char *config_text(struct json_object *v)
{
	const char *s;

	if (!json_object_is_type(v, json_type_string))
		return NULL;
	s = json_object_get_string(v);
	if (strlen(s) != (size_t)json_object_get_string_len(v) || strlen(s) > CONFIG_STRING_MAX)
		return NULL;
	return s;
}

static int config_read_str(struct json_object *config, const char *key, char **ret)
{
	struct json_object *v;

	if (!json_object_object_get_ex(config, key, &v) || !v)
		return 0;
	if (!config_text(v))
		return -EBADMSG;
	return *config_text(v) ? str_set(ret, config_text(v)) : 0;
}

static int config_read_strv(struct json_object *config, const char *key, char ***ret)
{
	struct json_object *v;
	size_t n;

	if (!json_object_object_get_ex(config, key, &v) || !v)
		return 0;
	if (!json_object_is_type(v, json_type_array))
		return -EBADMSG;
	n = json_object_array_length(v);
	if (n > CONFIG_ENTRIES_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		const char *s = config_text(json_object_array_get_idx(v, i));
		int r = s ? strv_push(ret, s) : -EBADMSG;

		if (r < 0)
			return r;
	}
	return 0;
}

static int config_check_env(char **env)
{
	for (; env && *env; env++) {
		if (!strchr(*env, '=') || **env == '=')
			return -EBADMSG;
	}
	return 0;
}

int image_config_read(
	struct json_object *configuration, struct image_config *ret, const char **ret_bad)
{
	struct json_object *config = oci_object(configuration, "config");
	CLEANUP(image_config_finish) struct image_config c = { 0 };
	struct {
		const char *key;
		char ***strv;
		char **str;
	} fields[] = { { "Entrypoint", &c.entrypoint }, { "Cmd", &c.cmd }, { "Env", &c.env },
		{ "WorkingDir", NULL, &c.workdir }, { "User", NULL, &c.user } };

	for (size_t i = 0; config && i < ARRAY_SIZE(fields); i++) {
		int r = fields[i].strv ? config_read_strv(config, fields[i].key, fields[i].strv)
				       : config_read_str(config, fields[i].key, fields[i].str);

		if (r == 0 && fields[i].strv == &c.env)
			r = config_check_env(c.env);
		*ret_bad = fields[i].key;
		if (r < 0)
			return r;
	}
	*ret = c;
	c = (struct image_config){ 0 };
	return 0;
}

static int config_add(
	struct json_object *config, const char *key, struct json_object *value_consume)
{
	if (value_consume && json_object_object_add(config, key, value_consume) == 0)
		return 0;
	json_object_put(value_consume);
	return -ENOMEM;
}

static struct json_object *config_array(char **v)
{
	struct json_object *array = json_object_new_array();

	for (; array && *v; v++) {
		struct json_object *s = json_object_new_string(*v);

		if (!s || json_object_array_add(array, s) < 0) {
			json_object_put(s);
			json_object_put(array);
			return NULL;
		}
	}
	return array;
}

int image_config_write(const struct image_config *c, struct json_object *config)
{
	int r = 0;

	if (c->entrypoint)
		r = config_add(config, "Entrypoint", config_array(c->entrypoint));
	if (r == 0 && c->cmd)
		r = config_add(config, "Cmd", config_array(c->cmd));
	if (r == 0 && c->env)
		r = config_add(config, "Env", config_array(c->env));
	if (r == 0 && c->workdir)
		r = config_add(config, "WorkingDir", json_object_new_string(c->workdir));
	if (r == 0 && c->user)
		r = config_add(config, "User", json_object_new_string(c->user));
	return r;
}

void image_config_finish(struct image_config *c)
{
	strv_free(c->entrypoint);
	strv_free(c->cmd);
	strv_free(c->env);
	free(c->workdir);
	free(c->user);
	*c = (struct image_config){ 0 };
}
