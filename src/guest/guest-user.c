#include "guest-user.h"

#include "cleanup.h"
#include "file.h"
#include "parse.h"
#include "str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define FILE_MAX   (1024 * 1024)
#define RECORD_MAX 4096
#define FIELDS_MAX 7
#define ID_MAX     (UINT32_MAX - 1)

/* Copies the next line into LINE and cuts it at its colons. False at the end. */
static bool next_record(
	const char **text, char line[static RECORD_MAX], char *fields[FIELDS_MAX], size_t *n)
{
	size_t len = strcspn(*text, "\n"), copy = len < RECORD_MAX ? len : RECORD_MAX - 1;

	if (**text == '\0')
		return false;
	memcpy(line, *text, copy);
	line[copy] = '\0';
	*text += len + ((*text)[len] == '\n');

	*n = 0;
	for (char *p = line; p && *n < FIELDS_MAX;)
		fields[(*n)++] = strsep(&p, ":");
	return true;
}

static int copy_text(char *to, size_t size, const char *from)
{
	size_t len = strlen(from);

	if (len >= size)
		return -ENAMETOOLONG;
	memcpy(to, from, len + 1);
	return 0;
}

/* name:password:uid:gid:gecos:home:shell */
static int find_passwd(
	const char *text, const char *who, uint32_t uid, bool by_id, struct guest_user *u)
{
	char line[RECORD_MAX], *f[FIELDS_MAX];
	size_t n;

	while (next_record(&text, line, f, &n)) {
		uint32_t id, gid;

		if (n < 6 || parse_u32(f[2], ID_MAX, &id) < 0 || parse_u32(f[3], ID_MAX, &gid) < 0)
			continue;
		if (by_id ? id != uid : !str_eq(f[0], who))
			continue;
		if (copy_text(u->name, sizeof u->name, f[0]) < 0 ||
			copy_text(u->home, sizeof u->home, f[5]) < 0)
			return -ENAMETOOLONG;
		u->uid = id;
		u->gid = gid;
		return 0;
	}
	return -ENOENT;
}

/* name:password:gid:member,member */
static int find_group(const char *text, const char *who, gid_t *ret)
{
	char line[RECORD_MAX], *f[FIELDS_MAX];
	uint32_t gid;
	size_t n;

	if (parse_u32(who, ID_MAX, &gid) == 0) {
		*ret = gid;
		return 0;
	}
	while (next_record(&text, line, f, &n)) {
		if (n < 3 || !str_eq(f[0], who) || parse_u32(f[2], ID_MAX, &gid) < 0)
			continue;
		*ret = gid;
		return 0;
	}
	return -ENOENT;
}

static bool is_member(char *members, const char *name)
{
	char *p = members, *one;

	while ((one = strsep(&p, ",")))
		if (str_eq(one, name))
			return true;
	return false;
}

static void find_supplementary(const char *text, struct guest_user *u)
{
	char line[RECORD_MAX], *f[FIELDS_MAX];
	size_t n;

	while (u->n_groups < GUEST_USER_GROUPS_MAX && next_record(&text, line, f, &n)) {
		uint32_t gid;

		if (n < 4 || parse_u32(f[2], ID_MAX, &gid) < 0 || !is_member(f[3], u->name))
			continue;
		u->groups[u->n_groups++] = gid;
	}
}

static int find_either(const char *passwd, const char *who, struct guest_user *u)
{
	uint32_t uid;

	if (parse_u32(who, ID_MAX, &uid) < 0)
		return find_passwd(passwd, who, 0, false, u);
	if (find_passwd(passwd, NULL, uid, true, u) < 0) {
		u->uid = uid;
		snprintf(u->name, sizeof u->name, "%u", uid);
	}
	return 0;
}

int guest_user_lookup(
	const char *spec, const char *passwd, const char *group, struct guest_user *ret)
{
	struct guest_user u = { .home = "/" };
	char who[256], *colon;
	int r;

	if (copy_text(who, sizeof who, *spec ? spec : "0") < 0)
		return -EINVAL;
	colon = strchr(who, ':');
	if (colon)
		*colon++ = '\0';
	if (who[0] == '\0' || (colon && *colon == '\0'))
		return -EINVAL;

	r = find_either(passwd, who, &u);
	if (r == 0 && colon)
		r = find_group(group, colon, &u.gid);
	if (r < 0)
		return r;
	if (u.uid == 0 && u.home[0] != '/')
		copy_text(u.home, sizeof u.home, "/root");
	if (!colon)
		find_supplementary(group, &u);
	*ret = u;
	return 0;
}

int guest_user_find(const char *spec, struct guest_user *ret)
{
	CLEANUP_FREE char *passwd = NULL, *group = NULL;

	file_read_at(AT_FDCWD, "/etc/passwd", FILE_MAX, &passwd, NULL);
	file_read_at(AT_FDCWD, "/etc/group", FILE_MAX, &group, NULL);
	return guest_user_lookup(spec, str_or(passwd, ""), str_or(group, ""), ret);
}
