#include "sv-saved.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent-wire.h"
#include "cleanup.h"
#include "fd.h"
#include "file.h"
#include "json-codec.h"
#include "str.h"
#include "varlink-wire.h"
#include "vm-volume.h"
#include "vmm.h"

#define F(s, field, type, ...) JSON_FIELD(struct sv_saved_##s, field, type, __VA_ARGS__)
#define HEX_MAX(bytes)         .max = 2 * (uint64_t)(bytes)

static const struct json_field self_fields[] = {
	F(self, version, JSON_U32),
	F(self, uvms, JSON_STR, .max = 64),
	F(self, state, JSON_STR, .max = 64),
	F(self, secret, JSON_STR, HEX_MAX(AGENT_WIRE_SECRET)),
	F(self, state_dir, JSON_STR),
	F(self, runtime_dir, JSON_STR),
	F(self, config_dir, JSON_STR),
	F(self, vm_fd, JSON_FD),
	F(self, runtime_fd, JSON_FD),
	F(self, lock_fd, JSON_FD),
	F(self, dir_fd, JSON_FD),
	F(self, vsock_fd, JSON_FD),
	F(self, net_fd, JSON_FD),
	F(self, life_fd, JSON_FD),
	F(self, broker_fd, JSON_FD),
	F(self, deadline_usec, JSON_U64),
	F(self, stop_timeout_usec, JSON_U64),
	F(self, steps_done, JSON_U32, .max = VM_STEP_MAX),
	F(self, net_restarts, JSON_U32),
	F(self, link_slot, JSON_U32, .max = VM_HOTPLUG_SLOTS_MAX),
	F(self, link_gone, JSON_BOOL),
	F(self, caller, JSON_U32, .max = SV_SAVED_CONNECTIONS - 1),
	F(self, owned, JSON_BOOL),
	F(self, starter_waits, JSON_BOOL),
};

static const struct json_field child_fields[] = {
	F(child, pid, JSON_U32, .max = INT32_MAX),
	F(child, pidfd, JSON_FD),
	F(child, output_fd, JSON_FD),
	F(child, end_code, JSON_U32, .max = 255),
	F(child, end_status, JSON_U32, .max = 255),
	F(child, dropped_bytes, JSON_U64),
	F(child, gap_bytes, JSON_U64),
	F(child, has_ended, JSON_BOOL),
};

static const struct json_field vsockd_fields[] = {
	F(vsockd, device_fd, JSON_FD),
	F(vsockd, dialed_fd, JSON_FD),
	F(vsockd, listen_fd, JSON_FD),
	F(vsockd, table_fd, JSON_FD),
	F(vsockd, state_fd, JSON_FD),
	F(vsockd, keeper_fd, JSON_FD),
	F(vsockd, cookie, JSON_U32),
	F(vsockd, served, JSON_BOOL),
	F(vsockd, started_usec, JSON_U64),
};

static const struct json_field tap_fields[] = {
	F(tap, link_fd, JSON_FD),
	F(tap, stream_fd, JSON_FD),
	F(tap, restarts, JSON_U32),
};

static const struct json_field disk_fields[] = {
	F(disk, name, JSON_STR, .max = VM_VOLUME_NAME_MAX),
	F(disk, fd, JSON_FD),
	F(disk, slot, JSON_U32, .max = VM_HOTPLUG_SLOTS_MAX - 1),
	F(disk, gone, JSON_BOOL),
};

static const struct json_field share_fields[] = {
	F(share, place, JSON_U32, .max = VM_STATUS_MOUNTS_MAX - 1),
	F(share, kind, JSON_U32, .max = 2),
	F(share, path, JSON_STR),
	F(share, source, JSON_STR),
	F(share, digest, JSON_STR, .max = 80),
	F(share, program, JSON_STR),
	F(share, fault, JSON_STR),
	F(share, which, JSON_STR, .max = 16),
	F(share, fd, JSON_FD),
	F(share, listen_fd, JSON_FD),
	F(share, bytes, JSON_U64),
	F(share, slot, JSON_U32, .max = VM_HOTPLUG_SLOTS_MAX - 1),
	F(share, restarts, JSON_U32),
	F(share, gone, JSON_BOOL),
	F(share, lost, JSON_BOOL),
};

static const struct json_field slot_fields[] = {
	F(slot, slot, JSON_U32, .max = KEEPER_SLOTS - 1),
	F(slot, fd, JSON_FD),
};

static const struct json_field vmm_fields[] = {
	F(vmm, fd, JSON_FD),
	F(vmm, events_fd, JSON_FD),
	F(vmm, version, JSON_U32),
	F(vmm, pending, JSON_STR, HEX_MAX(VMM_PENDING_MAX)),
};

static const struct json_field console_fields[] = {
	F(console, fd, JSON_FD),
	F(console, dropped_bytes, JSON_U64),
	F(console, gap_bytes, JSON_U64),
};

static const struct json_field client_fields[] = {
	F(client, fd, JSON_FD),
};

static const struct json_field agent_fields[] = {
	F(agent, fd, JSON_FD),
	F(agent, ready, JSON_BOOL),
	F(agent, n_lines, JSON_U32),
};

static const struct json_field home_fields[] = {
	F(home, fd, JSON_FD),
	F(home, proven, JSON_BOOL),
	F(home, control, JSON_BOOL),
	F(home, version, JSON_U32),
	F(home, pending, JSON_STR, HEX_MAX(AGENT_WIRE_FRAME_MAX)),
	F(home, timeout_usec, JSON_U64),
};

static const struct json_field control_fields[] = {
	F(control, fd, JSON_FD),
};

static const struct json_field connection_fields[] = {
	F(connection, fd, JSON_FD),
	F(connection, out_fd, JSON_FD),
	F(connection, may_write, JSON_BOOL),
	F(connection, owner, JSON_BOOL),
	F(connection, busy, JSON_BOOL),
	F(connection, oneway, JSON_BOOL),
	F(connection, in, JSON_STR, HEX_MAX(VARLINK_MESSAGE_MAX)),
	F(connection, out, JSON_STR, HEX_MAX(VARLINK_MESSAGE_MAX)),
};

static const struct json_field waiter_fields[] = {
	F(waiter, connection, JSON_U32, .max = SV_SAVED_CONNECTIONS - 1),
	F(waiter, what, JSON_STR, .max = 16),
};

static const struct json_field step_fields[] = {
	F(step, step, JSON_STR, .max = 64),
	F(step, args, JSON_STRV),
};

/* Each is an object in the text, or, with a count, an array of them. */
static const struct section {
	const char *name;
	const struct json_field *fields;
	size_t n_fields, offset, size;
	size_t max, count_at; /* MAX 0: one */
} sections[] = {
#define ONE(s)                                                                                     \
	{                                                                                          \
#s, s##_fields, ARRAY_SIZE(s##_fields), offsetof(struct sv_saved, s),              \
			sizeof(struct sv_saved_##s), 0, 0                                          \
	}
#define MANY(s, array)                                                                             \
	{                                                                                          \
#array, s##_fields, ARRAY_SIZE(s##_fields), offsetof(struct sv_saved, array),      \
			sizeof(struct sv_saved_##s), ARRAY_SIZE(((struct sv_saved *)0)->array),    \
			offsetof(struct sv_saved, n_##array)                                       \
	}
	ONE(self),
	ONE(vsockd),
	ONE(vmm),
	ONE(console),
	ONE(agent),
	ONE(control),
	ONE(tap),
	MANY(child, children),
	MANY(step, steps),
	MANY(slot, slots),
	MANY(client, clients),
	MANY(home, homes),
	MANY(connection, connections),
	MANY(waiter, waiters),
	MANY(disk, disks),
	MANY(share, shares),
};

static size_t section_count(const struct section *k, const struct sv_saved *s)
{
	return k->max ? *(const size_t *)(const void *)((const char *)s + k->count_at) : 1;
}

static void *section_at(const struct section *k, const struct sv_saved *s, size_t i)
{
	return (char *)s + k->offset + i * k->size;
}

/* Calls FN for each descriptor field of S, negative ones too. Stops at a negative result and returns it. */
static int each_fd(const struct sv_saved *s, int (*fn)(int *fd, void *userdata), void *userdata)
{
	int r = 0;

	for (const struct section *k = sections; k < sections + ARRAY_SIZE(sections); k++) {
		size_t n = k->max ? k->max : 1;

		for (size_t i = 0; i < n * k->n_fields && r >= 0; i++) {
			const struct json_field *f = &k->fields[i % k->n_fields];
			char *item = section_at(k, s, i / k->n_fields);

			if (f->type == JSON_FD)
				r = fn((int *)(void *)(item + f->offset), userdata);
		}
	}
	return r;
}

static int fd_idle(int *fd, void *userdata)
{
	*fd = -EBADF;
	return 0;
}

struct sv_saved *sv_saved_new(void)
{
	struct sv_saved *s = calloc(1, sizeof *s);

	if (s)
		(void)each_fd(s, fd_idle, NULL);
	return s;
}

void sv_saved_free(struct sv_saved *s)
{
	if (!s)
		return;
	for (const struct section *k = sections; k < sections + ARRAY_SIZE(sections); k++) {
		for (size_t i = 0; i < (k->max ? k->max : 1); i++)
			json_codec_release(k->fields, k->n_fields, section_at(k, s, i));
	}
	vm_spec_finish(&s->spec);
	vm_status_finish(&s->status);
	free(s);
}

/* descriptors: what each is, as far as it can be told */

struct fd_note {
	int fd;
	uint64_t kind, inode;
};

#define NOTE_PATH 255 /* no type of a socket */

static const struct json_field note_fields[] = {
	JSON_FIELD(struct fd_note, fd, JSON_FD),
	JSON_FIELD(struct fd_note, kind, JSON_U64),
	JSON_FIELD(struct fd_note, inode, JSON_U64),
};

static int note_fill(struct fd_note *n, int fd)
{
	int flags = fcntl(fd, F_GETFL), type = 0;
	socklen_t len = sizeof type;
	struct stat st;

	if (flags < 0 || fstat(fd, &st) < 0)
		return -EBADF;
	if (flags & O_PATH)
		type = NOTE_PATH; /* nothing more can be asked of it */
	else if (S_ISSOCK(st.st_mode) && getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0)
		return -errno;
	*n = (struct fd_note){ fd, (uint64_t)(st.st_mode & S_IFMT) | (uint64_t)type << 32,
		st.st_ino };
	return 0;
}

struct notes {
	struct fd_note all[SV_SAVED_FDS_MAX];
	bool claimed[SV_SAVED_FDS_MAX];
	size_t n;
};

static int notes_add(int *fd, void *userdata)
{
	struct notes *t = userdata;

	if (*fd < 0)
		return 0;
	if (t->n == SV_SAVED_FDS_MAX)
		return -E2BIG;
	return note_fill(&t->all[t->n++], *fd);
}

/* The first entry of FD, or n. */
static size_t notes_find(const struct notes *t, int fd)
{
	size_t i = 0;

	while (i < t->n && t->all[i].fd != fd)
		i++;
	return i;
}

/* Each field's descriptor is in the list, and is nobody else's. */
static int notes_claim(int *fd, void *userdata)
{
	struct notes *t = userdata;
	size_t i = *fd < 0 ? 0 : notes_find(t, *fd);

	if (*fd < 0)
		return 0;
	if (i == t->n || t->claimed[i])
		return -EBADMSG;
	t->claimed[i] = true;
	return 0;
}

/* text */

static int json_add(struct json_object *to, const char *key, struct json_object *v)
{
	if (v && json_object_object_add(to, key, v) == 0)
		return 0;
	json_object_put(v);
	return -ENOMEM;
}

static struct json_object *encode_array(
	const struct json_field *fields, size_t n_fields, const void *first, size_t size, size_t n)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; array && i < n; i++) {
		struct json_object *v =
			json_codec_encode(fields, n_fields, (const char *)first + i * size);

		if (v && json_object_array_add(array, v) == 0)
			continue;
		json_object_put(v);
		json_object_put(array);
		return NULL;
	}
	return array;
}

static int encode(const struct sv_saved *s, struct json_object *root)
{
	CLEANUP_FREE struct notes *t = calloc(1, sizeof *t);
	int r = t ? each_fd(s, notes_add, t) : -ENOMEM;

	for (const struct section *k = sections; r >= 0 && k < sections + ARRAY_SIZE(sections); k++)
		r = json_add(root, k->name,
			k->max ? encode_array(k->fields, k->n_fields, section_at(k, s, 0), k->size,
					 section_count(k, s))
			       : json_codec_encode(k->fields, k->n_fields, section_at(k, s, 0)));
	if (r >= 0)
		r = json_add(root, "descriptors",
			encode_array(note_fields, ARRAY_SIZE(note_fields), t->all, sizeof *t->all,
				t->n));
	if (r >= 0)
		r = json_add(root, "spec", vm_spec_to_json(&s->spec));
	return r < 0 ? r : json_add(root, "status", vm_status_to_json(&s->status));
}

int sv_saved_write(const struct sv_saved *s)
{
	CLEANUP(json_codec_putp) struct json_object *root = json_object_new_object();
	CLEANUP_CLOSE int fd = -EBADF;
	const char *text;
	size_t len;
	int r = root ? encode(s, root) : -ENOMEM;

	if (r < 0)
		return r;
	text = json_object_to_json_string_length(root, JSON_C_TO_STRING_PLAIN, &len);
	if (!text)
		return -ENOMEM;
	if (len > SV_SAVED_TEXT_MAX)
		return -E2BIG;
	fd = fd_memfd("uvms-supervisor");
	if (fd < 0)
		return fd;
	r = fd_write_all(fd, text, len);
	if (r < 0)
		return r;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return -errno;
	return TAKE_FD(fd);
}

static int decode_array(struct json_object *v, const struct json_field *fields, size_t n_fields,
	void *first, size_t size, size_t max, size_t *ret_n)
{
	size_t n = json_object_is_type(v, json_type_array) ? json_object_array_length(v) : max + 1;
	int r = 0;

	if (n > max)
		return -EBADMSG;
	for (size_t i = 0; r >= 0 && i < n; i++)
		r = json_codec_decode(json_object_array_get_idx(v, i), fields, n_fields,
			(char *)first + i * size, NULL);
	*ret_n = n;
	return r < 0 ? -EBADMSG : 0;
}

static int decode_section(struct json_object *v, const struct section *k, struct sv_saved *s)
{
	if (k->max)
		return decode_array(v, k->fields, k->n_fields, section_at(k, s, 0), k->size, k->max,
			(size_t *)(void *)((char *)s + k->count_at));
	return json_codec_decode(v, k->fields, k->n_fields, section_at(k, s, 0), NULL);
}

static int decode_spec(struct json_object *v, struct sv_saved *s, char **ret_reason)
{
	const char *text = json_object_to_json_string_ext(v, JSON_C_TO_STRING_PLAIN);

	return text ? vm_spec_from_json(text, strlen(text), &s->spec, ret_reason) : -ENOMEM;
}

static int decode_one(const char *key, struct json_object *v, struct sv_saved *s, struct notes *t,
	char **ret_reason)
{
	if (str_eq(key, "spec"))
		return decode_spec(v, s, ret_reason);
	if (str_eq(key, "status"))
		return vm_status_from_json(v, &s->status);
	if (str_eq(key, "descriptors"))
		return decode_array(v, note_fields, ARRAY_SIZE(note_fields), t->all, sizeof *t->all,
			SV_SAVED_FDS_MAX, &t->n);
	for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
		if (str_eq(key, sections[i].name))
			return decode_section(v, &sections[i], s);
	}
	return -EBADMSG;
}

/* Fields and list agree; and the list and what is open, when it is this process's. */
static int check_fds(const struct sv_saved *s, struct notes *t, bool here)
{
	int r = each_fd(s, notes_claim, t);

	for (size_t i = 0; r >= 0 && i < t->n; i++) {
		struct fd_note now;

		if (!t->claimed[i] || t->all[i].fd < 3 || notes_find(t, t->all[i].fd) != i)
			return -EBADMSG;
		r = here ? note_fill(&now, t->all[i].fd) : 0;
		if (r >= 0 && here && (now.kind != t->all[i].kind || now.inode != t->all[i].inode))
			return -EBADF;
	}
	return r;
}

/* Each has its own place, and what it is made of. */
static int check_shares(const struct sv_saved *s)
{
	uint64_t places = 0;

	for (size_t i = 0; i < s->n_shares; i++) {
		const struct sv_saved_share *share = &s->shares[i];

		if (places >> share->place & 1 || share->kind == 0 || share->fd < 0 ||
			!share->path || !share->source ||
			!(share->kind == 1 ? share->program : share->digest))
			return -EBADMSG;
		places |= 1ull << share->place;
	}
	return 0;
}

/* What has to be there, and what has to be in range of something else. */
static int check_whole(const struct sv_saved *s)
{
	const struct sv_saved_self *f = &s->self;
	uint64_t slots = 0;

	if (!f->state_dir || !f->runtime_dir || !f->config_dir)
		return -EBADMSG;
	if (!f->uvms || !f->state || !f->secret || strlen(f->secret) != 2 * AGENT_WIRE_SECRET)
		return -EBADMSG;
	if (f->runtime_fd < 0 || f->lock_fd < 0 || f->dir_fd < 0 || f->vm_fd < 0 ||
		s->console.fd < 0 || s->agent.fd < 0 || s->control.fd < 0 || s->vmm.fd < 0)
		return -EBADMSG;
	/* those before it had no uvms-tapd */
	if (s->n_children < SV_SAVED_TAP || s->n_children > SV_SAVED_CHILDREN ||
		f->steps_done > s->n_steps || f->caller >= s->n_connections || !s->spec.name ||
		!s->status.backend)
		return -EBADMSG;
	for (size_t i = 0; i < s->n_slots; i++) {
		if (s->slots[i].fd < 0 || slots >> s->slots[i].slot & 1)
			return -EBADMSG;
		slots |= 1ull << s->slots[i].slot;
	}
	for (size_t i = 0; i < s->n_waiters; i++) {
		if (s->waiters[i].connection >= s->n_connections || !s->waiters[i].what)
			return -EBADMSG;
	}
	return check_shares(s);
}

static int check_version(struct json_object *root, char **ret_reason)
{
	struct json_object *self, *v;
	uint64_t version = 0;

	if (json_object_object_get_ex(root, "self", &self) &&
		json_object_is_type(self, json_type_object) &&
		json_object_object_get_ex(self, "version", &v))
		version = json_object_get_uint64(v);
	if (version == SV_SAVED_VERSION)
		return 0;
	*ret_reason = str_printf("its state is of version %llu, known is %d",
		(unsigned long long)version, SV_SAVED_VERSION);
	return -EPROTONOSUPPORT;
}

static int decode(struct json_object *root, bool here, struct sv_saved *s, char **ret_reason)
{
	CLEANUP_FREE struct notes *t = calloc(1, sizeof *t);
	int r = t ? 0 : -ENOMEM;

	if (!json_object_is_type(root, json_type_object))
		return -EBADMSG;
	if (r == 0)
		r = check_version(root, ret_reason);
	if (r < 0)
		return r;
	json_object_object_foreach(root, key, value)
	{
		if (r < 0)
			break;
		r = decode_one(key, value, s, t, ret_reason);
		if (r < 0 && !*ret_reason)
			*ret_reason = str_printf("\"%s\" is not to be used", key);
	}
	if (r >= 0)
		r = check_fds(s, t, here);
	return r < 0 ? r : check_whole(s);
}

int sv_saved_decode(
	const char *text, size_t len, bool here, struct sv_saved **ret, char **ret_reason)
{
	CLEANUP(json_codec_putp) struct json_object *root = NULL;
	struct sv_saved *s;
	int r = json_codec_parse(text, len, &root);

	*ret_reason = NULL;
	if (r < 0)
		return r;
	s = sv_saved_new();
	if (!s)
		return -ENOMEM;
	r = decode(root, here, s, ret_reason);
	if (r < 0) {
		sv_saved_free(s);
		return r == -EINVAL ? -EBADMSG : r;
	}
	*ret = s;
	return 0;
}

int sv_saved_read(int memfd, bool here, struct sv_saved **ret, char **ret_reason)
{
	CLEANUP_FREE char *text = NULL;
	size_t len;
	int r;

	*ret_reason = NULL;
	if (lseek(memfd, 0, SEEK_SET) < 0)
		return -errno;
	r = file_read_fd(memfd, SV_SAVED_TEXT_MAX, &text, &len);
	return r < 0 ? r : sv_saved_decode(text, len, here, ret, ret_reason);
}

static int fd_keep(int *fd, void *userdata)
{
	return *fd < 0 ? 0 : fd_set_cloexec(*fd, *(bool *)userdata);
}

int sv_saved_set_cloexec(const struct sv_saved *s, bool on)
{
	return each_fd(s, fd_keep, &on);
}
