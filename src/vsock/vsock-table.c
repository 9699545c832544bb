#include "vsock-table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define VSOCK_PORT_FIRST (1u << 30)
#define VSOCK_PORT_LAST  ((1u << 31) - 1)

static_assert(sizeof(struct vsock_table_head) == 32, "layout of the file");
static_assert(sizeof(struct vsock_table_entry) == 32, "layout of the file");

int vsock_table_init(struct vsock_table *t, struct loop *loop, const struct vsock_conn_hooks *hooks,
	void *owner, uint64_t seed)
{
	void *arena = mmap(NULL, (size_t)VSOCK_CONNS_MAX * VSOCK_BUF_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (arena == MAP_FAILED)
		return -errno;
	t->arena = arena;
	t->file = NULL;
	t->seed = seed;
	t->next_port = VSOCK_PORT_FIRST + (uint32_t)(seed >> 40);
	t->n_used = 0;
	t->free = VSOCK_TABLE_NONE;
	t->fresh = 0;
	t->loop = loop;
	t->hooks = hooks;
	t->owner = owner;
	t->is_stale = false;
	memset(t->stale, 0, sizeof t->stale);
	memset(t->buckets, 0xff, sizeof t->buckets);
	return 0;
}

void vsock_table_finish(struct vsock_table *t)
{
	if (t->arena)
		munmap(t->arena, (size_t)VSOCK_CONNS_MAX * VSOCK_BUF_BYTES);
	if (t->file)
		munmap(t->file, VSOCK_TABLE_BYTES);
	t->arena = NULL;
	t->file = NULL;
}

static struct vsock_table_entry *vsock_table_entry(struct vsock_table_head *file, size_t slot)
{
	return (struct vsock_table_entry *)(file + 1) + slot;
}

static bool vsock_table_is_ours(const struct vsock_table_head *file)
{
	return file->magic == VSOCK_TABLE_MAGIC && file->n_slots == VSOCK_CONNS_MAX;
}

static struct vsock_key vsock_table_key(const struct vsock_table_entry *e)
{
	return (struct vsock_key){ .peer_cid = e->peer_cid,
		.peer_port = e->peer_port,
		.guest_port = e->guest_port,
		.type = (uint16_t)e->type };
}

static bool vsock_key_equal(const struct vsock_key *a, const struct vsock_key *b)
{
	return a->peer_port == b->peer_port && a->guest_port == b->guest_port &&
	       a->peer_cid == b->peer_cid && a->type == b->type;
}

static void vsock_table_clear(struct vsock_table *t, size_t slot)
{
	__atomic_store_n(&vsock_table_entry(t->file, slot)->live, 0, __ATOMIC_RELEASE);
}

static void vsock_table_write(struct vsock_table *t, size_t slot, const struct vsock_key *key)
{
	struct vsock_table_entry *e;
	struct vsock_key before;

	if (!t->file)
		return;
	t->stale[slot / 64] &= ~(1ull << slot % 64);
	e = vsock_table_entry(t->file, slot);
	before = vsock_table_key(e);
	if (e->live && vsock_key_equal(&before, key))
		return;
	vsock_table_clear(t, slot);
	e->peer_cid = key->peer_cid;
	e->peer_port = key->peer_port;
	e->guest_port = key->guest_port;
	e->type = key->type;
	__atomic_store_n(&e->live, 1, __ATOMIC_RELEASE);
}

void vsock_table_settle(struct vsock_table *t)
{
	if (!t->is_stale)
		return;
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		if (t->stale[i / 64] >> i % 64 & 1)
			vsock_table_clear(t, i);
	}
	memset(t->stale, 0, sizeof t->stale);
	t->is_stale = false;
}

int vsock_table_grow(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)VSOCK_TABLE_BYTES && ftruncate(fd, VSOCK_TABLE_BYTES) < 0)
		return -errno;
	return 0;
}

static int vsock_table_map(int fd, struct vsock_table_head **ret)
{
	void *map = mmap(NULL, VSOCK_TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	*ret = map;
	return 0;
}

/* Of what a former process left; read, as a page of the file that is only looked at through a mapping is there. */
static int vsock_table_load(int fd, struct vsock_table_head *copy)
{
	size_t have = 0;

	while (have < VSOCK_TABLE_BYTES) {
		ssize_t n =
			pread(fd, (uint8_t *)copy + have, VSOCK_TABLE_BYTES - have, (off_t)have);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		have += (size_t)n;
	}
	return 0;
}

/* Nothing was ever written to it. */
static bool vsock_table_is_blank(const struct vsock_table_head *copy)
{
	const uint8_t *p = (const uint8_t *)copy;

	return p[0] == 0 && memcmp(p, p + 1, VSOCK_TABLE_BYTES - 1) == 0;
}

/*
 * The n-th entry found gets the n-th slot at the latest, so what is overwritten is written already:
 * a death on the way leaves each of them live somewhere.
 */
static void vsock_table_move(struct vsock_table *t, const struct vsock_table_head *copy,
	void (*left)(const struct vsock_key *key, void *userdata), void *userdata)
{
	const struct vsock_table_entry *e = (const struct vsock_table_entry *)(copy + 1);

	if (!vsock_table_is_ours(copy))
		return;
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_key key = vsock_table_key(&e[i]);

		if (e[i].live)
			left(&key, userdata);
	}
	for (size_t i = t->n_used; i < VSOCK_CONNS_MAX; i++) {
		if (e[i].live) /* else its page need not be there */
			vsock_table_clear(t, i);
	}
}

int vsock_table_publish(struct vsock_table *t, int fd, uint64_t guest_cid,
	void (*left)(const struct vsock_key *key, void *userdata), void *userdata)
{
	void *copy;
	int r;

	copy = mmap(NULL, VSOCK_TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	if (copy == MAP_FAILED)
		return -ENOMEM;
	r = vsock_table_load(fd, copy);
	if (r == 0)
		r = vsock_table_map(fd, &t->file);
	if (r == 0) {
		if (!vsock_table_is_ours(copy) && !vsock_table_is_blank(copy))
			memset(t->file, 0, VSOCK_TABLE_BYTES);
		*t->file = (struct vsock_table_head){ .magic = VSOCK_TABLE_MAGIC,
			.n_slots = VSOCK_CONNS_MAX,
			.guest_cid = guest_cid };
		for (size_t i = 0; i < t->n_used; i++)
			vsock_table_write(t, i, &t->conns[i].key);
		vsock_table_move(t, copy, left, userdata);
	}
	munmap(copy, VSOCK_TABLE_BYTES);
	return r;
}

/* The guest chooses half of the key, so the hash is seeded: buckets cannot be filled on purpose. */
static uint16_t *vsock_table_bucket(struct vsock_table *t, const struct vsock_key *key)
{
	uint64_t h = t->seed;

	h = (h ^ key->peer_cid ^ (uint64_t)key->type << 56) * 0x9e3779b97f4a7c15u;
	h ^= h >> 29;
	h = (h ^ ((uint64_t)key->peer_port << 32 | key->guest_port)) * 0xbf58476d1ce4e5b9u;
	h ^= h >> 32;
	h *= t->seed | 1;
	return &t->buckets[h >> 54];
}

struct vsock_conn *vsock_table_find(struct vsock_table *t, const struct vsock_key *key)
{
	uint16_t i = *vsock_table_bucket(t, key);

	while (i != VSOCK_TABLE_NONE && !vsock_key_equal(&t->conns[i].key, key))
		i = t->conns[i].hash_next;
	return i == VSOCK_TABLE_NONE ? NULL : &t->conns[i];
}

/* A slot that nobody has, made when none was given back: most guests never need many. */
static uint16_t vsock_table_slot(struct vsock_table *t)
{
	uint16_t i = t->free;

	if (i != VSOCK_TABLE_NONE) {
		t->free = t->conns[i].hash_next;
		return i;
	}
	if (t->fresh == VSOCK_CONNS_MAX)
		return VSOCK_TABLE_NONE;
	i = t->fresh++;
	vsock_conn_init(
		&t->conns[i], t->loop, t->hooks, t->owner, t->arena + (size_t)i * VSOCK_BUF_BYTES);
	return i;
}

struct vsock_conn *vsock_table_take(struct vsock_table *t, const struct vsock_key *key)
{
	uint16_t *bucket = vsock_table_bucket(t, key), i = vsock_table_slot(t);
	struct vsock_conn *c;

	if (i == VSOCK_TABLE_NONE)
		return NULL;
	c = &t->conns[i];
	c->key = *key;
	c->hash_next = *bucket;
	*bucket = i;
	t->n_used++;
	vsock_table_write(t, i, key);
	return c;
}

void vsock_table_release(struct vsock_table *t, struct vsock_conn *c)
{
	uint16_t *link = vsock_table_bucket(t, &c->key), i = (uint16_t)(c - t->conns);

	while (*link != i)
		link = &t->conns[*link].hash_next;
	*link = c->hash_next;
	if (t->file) {
		t->is_stale = true;
		t->stale[i / 64] |= 1ull << i % 64;
	}
	if (c->ring_touched)
		madvise(c->ring.data, VSOCK_BUF_BYTES, MADV_DONTNEED);
	c->ring_touched = false;
	c->hash_next = t->free;
	t->free = i;
	t->n_used--;
}

uint32_t vsock_table_port(struct vsock_table *t, uint32_t guest_port)
{
	struct vsock_key key = {
		.peer_cid = VSOCK_CID_HOST, .guest_port = guest_port, .type = VSOCK_TYPE_STREAM
	};

	do {
		key.peer_port = t->next_port++;
		if (t->next_port > VSOCK_PORT_LAST)
			t->next_port = VSOCK_PORT_FIRST;
	} while (vsock_table_find(t, &key));
	return key.peer_port;
}
