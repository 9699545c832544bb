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
	t->free = 0;
	memset(t->buckets, 0xff, sizeof t->buckets);
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		vsock_conn_init(&t->conns[i], loop, hooks, owner, t->arena + i * VSOCK_BUF_BYTES);
		t->conns[i].hash_next = i + 1 < VSOCK_CONNS_MAX ? i + 1 : VSOCK_TABLE_NONE;
	}
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

static void vsock_table_read_left(struct vsock_table_head *file,
	void (*left)(const struct vsock_key *key, void *userdata), void *userdata)
{
	if (file->magic != VSOCK_TABLE_MAGIC || file->n_slots != VSOCK_CONNS_MAX)
		return;
	for (size_t i = 0; i < VSOCK_CONNS_MAX; i++) {
		struct vsock_table_entry e = *vsock_table_entry(file, i);

		if (e.live)
			left(&(struct vsock_key){ .peer_cid = e.peer_cid,
				     .peer_port = e.peer_port,
				     .guest_port = e.guest_port,
				     .type = (uint16_t)e.type },
				userdata);
	}
}

static void vsock_table_write(const struct vsock_table *t, size_t slot, const struct vsock_key *key)
{
	struct vsock_table_entry *e;

	if (!t->file)
		return;
	e = vsock_table_entry(t->file, slot);
	__atomic_store_n(&e->live, 0, __ATOMIC_RELEASE);
	if (!key)
		return;
	e->peer_cid = key->peer_cid;
	e->peer_port = key->peer_port;
	e->guest_port = key->guest_port;
	e->type = key->type;
	__atomic_store_n(&e->live, 1, __ATOMIC_RELEASE);
}

/* LEFT may take slots, so the old entries are read from a copy before ours are written. */
int vsock_table_publish(struct vsock_table *t, int fd, uint64_t guest_cid,
	void (*left)(const struct vsock_key *key, void *userdata), void *userdata)
{
	struct stat st;
	void *map, *copy;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size < (off_t)VSOCK_TABLE_BYTES && ftruncate(fd, VSOCK_TABLE_BYTES) < 0)
		return -errno;
	map = mmap(NULL, VSOCK_TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -errno;
	copy = mmap(NULL, VSOCK_TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	if (copy == MAP_FAILED) {
		munmap(map, VSOCK_TABLE_BYTES);
		return -ENOMEM;
	}
	memcpy(copy, map, VSOCK_TABLE_BYTES);
	memset(map, 0, VSOCK_TABLE_BYTES);
	t->file = map;
	*t->file = (struct vsock_table_head){
		.magic = VSOCK_TABLE_MAGIC, .n_slots = VSOCK_CONNS_MAX, .guest_cid = guest_cid
	};
	vsock_table_read_left(copy, left, userdata);
	munmap(copy, VSOCK_TABLE_BYTES);
	return 0;
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

static bool vsock_key_equal(const struct vsock_key *a, const struct vsock_key *b)
{
	return a->peer_port == b->peer_port && a->guest_port == b->guest_port &&
	       a->peer_cid == b->peer_cid && a->type == b->type;
}

struct vsock_conn *vsock_table_find(struct vsock_table *t, const struct vsock_key *key)
{
	uint16_t i = *vsock_table_bucket(t, key);

	while (i != VSOCK_TABLE_NONE && !vsock_key_equal(&t->conns[i].key, key))
		i = t->conns[i].hash_next;
	return i == VSOCK_TABLE_NONE ? NULL : &t->conns[i];
}

struct vsock_conn *vsock_table_take(struct vsock_table *t, const struct vsock_key *key)
{
	uint16_t *bucket = vsock_table_bucket(t, key), i = t->free;
	struct vsock_conn *c;

	if (i == VSOCK_TABLE_NONE)
		return NULL;
	c = &t->conns[i];
	t->free = c->hash_next;
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
	vsock_table_write(t, i, NULL);
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
