#include "run-image.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "cli-store.h"
#include "store.h"
#include "str.h"
#include "vm-spec.h"

static int append(char ***to, char *const *from)
{
	int r = 0;

	for (; r == 0 && from && *from; from++)
		r = strv_push(to, *from);
	return r;
}

/* A command that is an init system is booted, not run: it wants to be PID 1. */
static bool is_init(char *const *command)
{
	static const char *const inits[] = { "/sbin/init", "/init", "/bin/init", "/usr/sbin/init",
		"/lib/systemd/systemd", "/usr/lib/systemd/systemd", NULL };

	for (const char *const *i = inits; *i; i++) {
		if (str_eq(command[0], *i))
			return true;
	}
	return false;
}

/* Like docker's: arguments of the caller replace Cmd, an entrypoint of his replaces both. */
static int apply_command(
	struct vm_spec *s, const struct image_config *c, const struct run_image_wish *wish)
{
	CLEANUP(strv_freep) char **command = NULL;
	int r = 0;

	if (wish->init)
		return 0;
	if (!wish->entrypoint)
		r = append(&command, c->entrypoint);
	else if (*wish->entrypoint)
		r = strv_push(&command, wish->entrypoint);
	if (r == 0)
		r = append(&command, s->command ? s->command : wish->entrypoint ? NULL : c->cmd);
	if (r < 0 || !command || (!s->command && is_init(command)))
		return r;
	strv_free(s->command);
	s->command = TAKE_PTR(command);
	return 0;
}

static int apply_rest(struct vm_spec *s, const struct image_config *c)
{
	CLEANUP(strv_freep) char **env = NULL;
	int r;

	if (!s->command)
		return 0;
	r = append(&env, c->env);
	if (r == 0)
		r = append(&env, s->env);
	if (r == 0 && !s->workdir)
		r = str_set(&s->workdir, c->workdir);
	if (r == 0 && !s->user)
		r = str_set(&s->user, c->user);
	if (r < 0)
		return r;
	strv_free(s->env);
	s->env = TAKE_PTR(env);
	return 0;
}

int run_image_apply(struct vm_spec *s, const struct run_image_wish *wish)
{
	CLEANUP(store_closep) struct store *store = cli_store();
	CLEANUP(store_image_finish) struct store_image image = { 0 };
	CLEANUP_FREE char *reason = NULL;
	int r = store_find_image(store, s->image, &image, &reason);

	if (r < 0)
		return r == -ENOMEM ? r : 0;
	r = apply_command(s, &image.config, wish);
	return r < 0 ? r : apply_rest(s, &image.config);
}
