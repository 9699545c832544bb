/* Hostile guests: the process lives, and answers as the tables say. */
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "cleanup.h"
#include "fake-frontend.h"
#include "unit.h"

static struct fake f;

/* rings: a rule is broken, the queue stops, the process and the other queue live */

#define NEXT  VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIR VRING_DESC_F_INDIRECT

struct bad_ring {
	const char *name;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} d[3];
	struct vring_desc table[3]; /* at FAKE_SCRATCH */
	uint16_t head;
	uint16_t jump; /* of the available index, beyond the one that is offered */
};

#define AT FAKE_TX_AT

static const struct bad_ring bad_rings[] = {
	{ "head out of range", { { AT, 44, 0, 0 } }, {}, FAKE_NUM, 0 },
	{ "head 65535", { { AT, 44, 0, 0 } }, {}, 65535, 0 },
	{ "index jumps", { { AT, 44, 0, 0 } }, {}, 0, FAKE_NUM },
	{ "index goes back", { { AT, 44, 0, 0 } }, {}, 0, 65534 },
	{ "loop of one", { { AT, 44, NEXT, 0 } }, {}, 0, 0 },
	{ "loop of two", { { AT, 22, NEXT, 1 }, { AT, 22, NEXT, 0 } }, {}, 0, 0 },
	{ "next out of range", { { AT, 44, NEXT, FAKE_NUM } }, {}, 0, 0 },
	{ "address outside", { { FAKE_MEM_BYTES, 44, 0, 0 } }, {}, 0, 0 },
	{ "address straddles the end", { { FAKE_MEM_BYTES - 4, 44, 0, 0 } }, {}, 0, 0 },
	{ "address wraps", { { -8ull, 44, 0, 0 } }, {}, 0, 0 },
	{ "length 2^32-1", { { AT, UINT32_MAX, 0, 0 } }, {}, 0, 0 },
	{ "read after write", { { AT, 44, WRITE | NEXT, 1 }, { AT, 44, 0, 0 } }, {}, 0, 0 },
	{ "indirect of nothing", { { FAKE_SCRATCH, 0, INDIR, 0 } }, {}, 0, 0 },
	{ "indirect of odd length", { { FAKE_SCRATCH, 17, INDIR, 0 } }, {}, 0, 0 },
	{ "indirect too long", { { FAKE_SCRATCH, 16 * (FAKE_NUM + 1), INDIR, 0 } }, {}, 0, 0 },
	{ "indirect and next", { { FAKE_SCRATCH, 16, INDIR | NEXT, 1 } }, { { AT, 44, 0, 0 } }, 0,
		0 },
	{ "indirect outside", { { FAKE_MEM_BYTES - 8, 16, INDIR, 0 } }, {}, 0, 0 },
	{ "indirect wraps", { { -16ull, 32, INDIR, 0 } }, {}, 0, 0 },
	{ "indirect in indirect", { { FAKE_SCRATCH, 16, INDIR, 0 } },
		{ { FAKE_SCRATCH, 16, INDIR, 0 } }, 0, 0 },
	{ "indirect next out of range", { { FAKE_SCRATCH, 32, INDIR, 0 } }, { { AT, 44, NEXT, 2 } },
		0, 0 },
	{ "indirect length overflows", { { FAKE_SCRATCH, 0xfffffff0, INDIR, 0 } }, {}, 0, 0 },
	{ "indirect of one byte", { { FAKE_SCRATCH, 1, INDIR, 0 } }, { { AT, 44, 0, 0 } }, 0, 0 },
	{ "indirect at the last address", { { -1ull, 16, INDIR, 0 } }, {}, 0, 0 },
	{ "indirect and read after write", { { FAKE_SCRATCH, 32, INDIR, 0 } },
		{ { AT, 44, WRITE | NEXT, 1 }, { AT, 44, 0, 0 } }, 0, 0 },
	{ "write, then indirect to read",
		{ { AT, 44, WRITE | NEXT, 1 }, { FAKE_SCRATCH, 16, INDIR, 0 } },
		{ { AT, 44, 0, 0 } }, 0, 0 },
	{ "direct, then indirect in indirect",
		{ { AT, 44, NEXT, 1 }, { FAKE_SCRATCH, 16, INDIR, 0 } },
		{ { FAKE_SCRATCH, 16, INDIR, 0 } }, 0, 0 },
	{ "direct, then indirect outside",
		{ { AT, 44, NEXT, 1 }, { FAKE_MEM_BYTES, 16, INDIR, 0 } }, {}, 0, 0 },
	{ "direct, then indirect and next",
		{ { AT, 44, NEXT, 1 }, { FAKE_SCRATCH, 16, INDIR | NEXT, 2 } },
		{ { AT, 44, 0, 0 } }, 0, 0 },
	{ "direct, then indirect too long",
		{ { AT, 44, NEXT, 1 }, { FAKE_SCRATCH, 16 * (FAKE_NUM + 1), INDIR, 0 } },
		{ { AT, 44, 0, 0 } }, 0, 0 },
	{ "second piece outside", { { AT, 44, NEXT, 1 }, { FAKE_MEM_BYTES - 1, 2, 0, 0 } }, {}, 0,
		0 },
	{ "second piece wraps", { { AT, 44, NEXT, 1 }, { -1ull, 2, 0, 0 } }, {}, 0, 0 },
	{ "third piece next 65535",
		{ { AT, 4, NEXT, 1 }, { AT, 4, NEXT, 2 }, { AT, 4, NEXT, 65535 } }, {}, 0, 0 },
	{ "writable piece outside", { { AT, 44, NEXT, 1 }, { FAKE_MEM_BYTES, 4, WRITE, 0 } }, {}, 0,
		0 },
	{ "length 2^31", { { 0, 1u << 31, 0, 0 } }, {}, 0, 0 },
	{ "index jumps by one too many", { { AT, 44, 0, 0 } }, {}, 0, 32767 },
	{ "indirect loop", { { FAKE_SCRATCH, 32, INDIR, 0 } },
		{ { AT, 22, NEXT, 1 }, { AT, 22, NEXT, 0 } }, 0, 0 },
};

/* A chain that is bad by itself is so in an indirect table too. */
static bool can_be_indirect(const struct bad_ring *b)
{
	for (int i = 0; i < 3; i++) {
		if (b->d[i].flags & INDIR)
			return false;
	}
	return !b->head && !b->jump;
}

static void put_bad_table(const struct bad_ring *b, unsigned q)
{
	struct vring_desc table[3];

	for (int i = 0; i < 3; i++)
		table[i] = (struct vring_desc){ htole64(b->d[i].addr), htole32(b->d[i].len),
			htole16(b->d[i].flags), htole16(b->d[i].next) };
	memcpy(f.mem + FAKE_SCRATCH, table, sizeof table);
	fake_desc(&f, q, 0, FAKE_SCRATCH, sizeof table, INDIR, 0);
	fake_offer(&f, q, 0);
	fake_kick(&f, q);
}

static void put_bad_ring(const struct bad_ring *b, unsigned q)
{
	if (fake_indirect && can_be_indirect(b)) {
		put_bad_table(b, q);
		return;
	}
	for (uint16_t i = 0; i < 3; i++)
		fake_desc(&f, q, i, b->d[i].addr, b->d[i].len, b->d[i].flags, b->d[i].next);
	memcpy(f.mem + FAKE_SCRATCH, b->table, sizeof b->table);
	fake_offer(&f, q, b->head);
	if (b->jump)
		fake_publish(&f, q, (uint16_t)(f.rings[q].avail + b->jump));
	fake_kick(&f, q);
}

/* What a driver does when it starts again. */
static void guest_restarts(void)
{
	uint32_t base[2];

	for (unsigned i = 0; i < FAKE_QUEUES; i++) {
		fake_set_state(&f, VU_GET_VRING_BASE, i, 0);
		fake_reply(&f, VU_GET_VRING_BASE, base, sizeof base);
	}
	fake_rings_clear(&f);
	for (unsigned i = 0; i < FAKE_QUEUES; i++)
		fake_setup_queue(&f, i);
	fake_post_rx(&f, FAKE_NUM);
}

static void restart_without_buffers(void)
{
	uint32_t base[2];

	for (unsigned q = 0; q < FAKE_QUEUES; q++) {
		fake_set_state(&f, VU_GET_VRING_BASE, q, 0);
		fake_reply(&f, VU_GET_VRING_BASE, base, sizeof base);
	}
	fake_rings_clear(&f);
	for (unsigned q = 0; q < FAKE_QUEUES; q++)
		fake_setup_queue(&f, q);
}

/* A packet for nobody is answered by RST: both queues work. */
static void assert_works(const char *after)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 4321, 1234);

	fake_tx(&f, &p, NULL, 0);
	if (!fake_rx(&f, &p, NULL, 3000) || p.op != VSOCK_OP_RST || p.dst_port != 4321)
		fail_msg("after \"%s\" it does not work any more", after);
}

static void rings_break_alone(void **state)
{
	fake_setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(bad_rings); i++) {
		put_bad_ring(&bad_rings[i], 1);
		fake_get_u64(&f, VU_GET_QUEUE_NUM);
		if (fake_used(&f, 1) != f.rings[1].used)
			fail_msg("%s: it was used", bad_rings[i].name);
		assert_true(fake_alive(&f));
		guest_restarts();
		assert_works(bad_rings[i].name);
		guest_restarts();
	}
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* The same on the other queue, which is only looked at when there is something to say. */
static void rx_rings_break_alone(void **state)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 1, 1);

	fake_setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(bad_rings); i++) {
		restart_without_buffers();
		put_bad_ring(&bad_rings[i], 0);
		fake_tx(&f, &p, NULL, 0);
		fake_wait_used(&f, 1, 1);
		fake_get_u64(&f, VU_GET_QUEUE_NUM);
		assert_true(fake_alive(&f));
		guest_restarts();
		assert_works(bad_rings[i].name);
	}
	fake_stop(&f);
}

/* A packet may lie in any number of pieces, direct then indirect, header split to the byte. */
static void header_in_many_pieces(void **state)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 77, 88);
	struct vring_desc table[VSOCK_HEADER_BYTES];

	fake_setup(&f);
	vsock_wire_put(f.mem + AT, &p);
	for (uint16_t i = 0; i < 4; i++)
		fake_desc(&f, 1, i, AT + i, 1, NEXT, i + 1);
	fake_desc(&f, 1, 4, FAKE_SCRATCH, 16 * 40, INDIR | WRITE, 0);
	for (unsigned i = 0; i < 40; i++)
		table[i] = (struct vring_desc){ htole64(AT + 4 + i), htole32(1),
			htole16(i < 39 ? NEXT : 0), htole16(i + 1) };
	memcpy(f.mem + FAKE_SCRATCH, table, sizeof table);
	fake_offer(&f, 1, 0);
	fake_kick(&f, 1);
	fake_expect(&f, VSOCK_OP_RST, 77, NULL);
	fake_stop(&f);
}

/* Chains that are odd, but a chain: taken, and answered if there is a whole header in them. */
static void odd_chains(void **state)
{
	static const struct {
		const char *name;
		bool answered;
		struct vring_desc d[3], table[3];
	} cases[] = {
		{ "no byte", false, { { AT, 0, 0, 0 } }, {} },
		{ "43 bytes", false, { { AT, 43, 0, 0 } }, {} },
		{ "nothing to read", false, { { AT + 64, 44, WRITE, 0 } }, {} },
		{ "no byte in three pieces", false,
			{ { AT, 0, NEXT, 1 }, { AT, 0, NEXT, 2 }, { AT, 0, 0, 0 } }, {} },
		{ "empty piece outside of memory", true,
			{ { -1ull, 0, NEXT, 1 }, { AT, 44, 0, 0 } }, {} },
		{ "a piece to write behind", true,
			{ { AT, 44, NEXT, 1 }, { AT + 64, 16, WRITE, 0 } }, {} },
		{ "empty pieces around", true,
			{ { AT, 0, NEXT, 1 }, { AT, 44, NEXT, 2 }, { AT, 0, 0, 0 } }, {} },
		{ "more bytes than it says", true,
			{ { AT, 44, NEXT, 1 }, { AT + 64, 65536, 0, 0 } }, {} },
		{ "1 MiB in one piece", true, { { AT, 1 << 20, 0, 0 } }, {} },
		{ "all of memory", true, { { AT, FAKE_MEM_BYTES - AT, 0, 0 } }, {} },
		{ "the same piece twice", true, { { AT, 44, NEXT, 1 }, { AT, 44, 0, 0 } }, {} },
		{ "header in three", true,
			{ { AT, 1, NEXT, 2 }, { AT + 43, 1, 0, 0 }, { AT + 1, 42, NEXT, 1 } }, {} },
		{ "indirect", true, { { FAKE_SCRATCH, 16, INDIR, 0 } }, { { AT, 44, 0, 0 } } },
		{ "indirect marked to write", true, { { FAKE_SCRATCH, 16, INDIR | WRITE, 0 } },
			{ { AT, 44, 0, 0 } } },
		{ "direct, then indirect", true,
			{ { AT, 20, NEXT, 1 }, { FAKE_SCRATCH, 16, INDIR, 0 } },
			{ { AT + 20, 24, 0, 0 } } },
		{ "indirect in any order", true, { { FAKE_SCRATCH, 48, INDIR, 0 } },
			{ { AT, 4, NEXT, 2 }, { AT + 40, 4, 0, 0 }, { AT + 4, 36, NEXT, 1 } } },
		{ "indirect at an odd address", true, { { FAKE_SCRATCH + 1, 16, INDIR, 0 } }, {} },
	};
	const struct vring_desc plain = { AT, 44, 0, 0 };
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 77, 88), got;

	fake_setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct vring_desc *d = cases[i].d;
		bool any;

		vsock_wire_put(f.mem + AT, &p);
		memcpy(f.mem + FAKE_SCRATCH, cases[i].table, sizeof cases[i].table);
		if (d[0].addr % 2 && d[0].addr < FAKE_MEM_BYTES)
			memcpy(f.mem + d[0].addr, &plain, sizeof plain);
		for (uint16_t k = 0; k < 3; k++)
			fake_desc(&f, 1, k, d[k].addr, d[k].len, d[k].flags, d[k].next);
		fake_offer(&f, 1, 0);
		fake_kick(&f, 1);
		fake_wait_used(&f, 1, f.rings[1].avail);
		any = fake_rx(&f, &got, NULL, cases[i].answered ? 3000 : 20);
		if (any != cases[i].answered || (any && got.op != VSOCK_OP_RST))
			fail_msg("%s: %s", cases[i].name, any ? "answered" : "not answered");
	}
	fake_stop(&f);
}

/* Buffers for the guest that hold no packet: the queue stops; the smallest one that does is filled. */
static void odd_buffers(void **state)
{
	static const struct {
		const char *name;
		bool used;
		struct vring_desc d[2];
	} cases[] = {
		{ "no byte", false, { { FAKE_RX_AT, 0, WRITE, 0 } } },
		{ "43 bytes", false, { { FAKE_RX_AT, 43, WRITE, 0 } } },
		{ "not to write", false, { { FAKE_RX_AT, 4096, 0, 0 } } },
		{ "one piece not to write", false,
			{ { FAKE_RX_AT, 44, NEXT, 1 }, { FAKE_RX_AT, 4096, WRITE, 0 } } },
		{ "44 bytes", true, { { FAKE_RX_AT, 44, WRITE, 0 } } },
		{ "44 bytes in two", true,
			{ { FAKE_RX_AT, 43, WRITE | NEXT, 1 }, { FAKE_RX_AT + 43, 1, WRITE, 0 } } },
		{ "an empty piece first", true,
			{ { 0, 0, WRITE | NEXT, 1 }, { FAKE_RX_AT, 100, WRITE, 0 } } },
	};
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 77, 88), got;

	fake_start(&f);
	fake_handshake(&f);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct vring_desc *d = cases[i].d;

		restart_without_buffers();
		for (uint16_t k = 0; k < 2; k++)
			fake_desc(&f, 0, k, d[k].addr, d[k].len, d[k].flags, d[k].next);
		fake_offer(&f, 0, 0);
		fake_tx(&f, &p, NULL, 0);
		fake_wait_used(&f, 1, 1);
		fake_get_u64(&f, VU_GET_QUEUE_NUM);
		fake_wait_used(&f, 0, cases[i].used);
		usleep(2000);
		if (fake_used(&f, 0) != cases[i].used)
			fail_msg("%s: used %u", cases[i].name, fake_used(&f, 0));
		if (cases[i].used) {
			vsock_wire_get(f.mem + FAKE_RX_AT, VSOCK_HEADER_BYTES, &got);
			assert_int_equal(got.op, VSOCK_OP_RST);
		}
		guest_restarts();
		assert_works(cases[i].name);
	}
	fake_stop(&f);
}

#define MB          (1u << 20)
#define BORDER      (24 * MB) /* the second region's bytes lie elsewhere in the file */
#define BORDER_FILE (28 * MB)
#define HOLE        (25 * MB)
#define BEHIND_HOLE (26 * MB)

/* Packets and tables across two regions are whole; across a hole they break the queue. */
static void region_borders(void **state)
{
	const uint64_t regions[] = { 3, 0, BORDER, FAKE_USER, 0, BORDER, MB, FAKE_USER + BORDER,
		BORDER_FILE, BEHIND_HOLE, MB, FAKE_USER + BEHIND_HOLE, BORDER_FILE + MB };
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RW, 77, 88);
	struct vring_desc table = { htole64(AT), htole32(44), 0, 0 };
	uint8_t header[VSOCK_HEADER_BYTES];

	fake_start(&f);
	fake_handshake(&f);
	fake_message(&f, VU_SET_MEM_TABLE, VU_FLAG_VERSION, regions, sizeof regions,
		(int[]){ f.mem_fd, f.mem_fd, f.mem_fd }, 3);
	fake_get_u64(&f, VU_GET_QUEUE_NUM); /* it is done before the first kick */
	fake_post_rx(&f, FAKE_NUM);
	vsock_wire_put(header, &p);
	for (uint32_t part = 1; part < VSOCK_HEADER_BYTES; part++) {
		memcpy(f.mem + BORDER - part, header, part);
		memcpy(f.mem + BORDER_FILE, header + part, VSOCK_HEADER_BYTES - part);
		fake_desc(&f, 1, 0, BORDER - part, VSOCK_HEADER_BYTES, 0, 0);
		fake_offer(&f, 1, 0);
		fake_kick(&f, 1);
		fake_expect(&f, VSOCK_OP_RST, 77, NULL);
	}
	vsock_wire_put(f.mem + AT, &p);
	for (uint32_t part = 1; part < sizeof table; part++) {
		memcpy(f.mem + BORDER - part, &table, part);
		memcpy(f.mem + BORDER_FILE, (uint8_t *)&table + part, sizeof table - part);
		fake_desc(&f, 1, 0, BORDER - part, sizeof table, INDIR, 0);
		fake_offer(&f, 1, 0);
		fake_kick(&f, 1);
		fake_expect(&f, VSOCK_OP_RST, 77, NULL);
	}
	fake_wait_used(&f, 1, f.rings[1].avail);
	fake_desc(&f, 1, 0, HOLE - 20, VSOCK_HEADER_BYTES, 0, 0);
	fake_offer(&f, 1, 0);
	fake_kick(&f, 1);
	fake_get_u64(&f, VU_GET_QUEUE_NUM);
	usleep(2000);
	assert_int_equal(fake_used(&f, 1), f.rings[1].used);
	guest_restarts();
	fake_desc(&f, 1, 0, BEHIND_HOLE - 20, VSOCK_HEADER_BYTES, 0, 0);
	fake_offer(&f, 1, 0);
	fake_kick(&f, 1);
	fake_get_u64(&f, VU_GET_QUEUE_NUM);
	usleep(2000);
	assert_int_equal(fake_used(&f, 1), 0);
	guest_restarts();
	assert_works("a hole");
	fake_stop(&f);
}

/* Kicks that mean nothing, without end. */
static void kick_storm(void **state)
{
	fake_setup(&f);
	for (int i = 0; i < 100000; i++)
		fake_kick(&f, (unsigned)i % FAKE_QUEUES);
	assert_works("a storm of kicks");
	fake_stop(&f);
}

/* A guest that fills its queue for ever, in a process of its own: callers are served meanwhile. */
static void endless_queue(void **state)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_RST, 77, 88);
	pid_t pid;

	fake_setup(&f);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		for (;;)
			fake_tx(&f, &p, NULL, 0);
	}
	for (int i = 0; i < 50; i++) {
		uint64_t start = fake_now_usec();
		int fd = fake_connect(&f);

		assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
		fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL);
		assert_in_range(fake_now_usec() - start, 0, 500000);
		close(fd);
		fake_expect(&f, VSOCK_OP_RST, 5000, NULL);
	}
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	fake_stop(&f);
}

/* packets */

struct bad_packet {
	const char *name;
	int answer; /* an operation, 0: none */
	struct vsock_pkt p;
	uint32_t bytes; /* of payload that are there */
};

#define PKT(o, ...)                                                                                \
	{                                                                                          \
		.src_cid = FAKE_CID, .dst_cid = 2, .src_port = 1000, .dst_port = 7000, .type = 1,  \
		.op = o, .buf_alloc = 65536, __VA_ARGS__                                           \
	}

static const struct bad_packet for_nobody[] = {
	{ "data", VSOCK_OP_RST, PKT(VSOCK_OP_RW), 0 },
	{ "response", VSOCK_OP_RST, PKT(VSOCK_OP_RESPONSE), 0 },
	{ "shutdown", VSOCK_OP_RST, PKT(VSOCK_OP_SHUTDOWN, .flags = 3), 0 },
	{ "credit update", VSOCK_OP_RST, PKT(VSOCK_OP_CREDIT_UPDATE), 0 },
	{ "reset", 0, PKT(VSOCK_OP_RST), 0 },
	{ "operation 0", VSOCK_OP_RST, PKT(VSOCK_OP_INVALID), 0 },
	{ "operation 8", VSOCK_OP_RST, PKT(8), 0 },
	{ "operation 65535", VSOCK_OP_RST, PKT(65535), 0 },
	{ "type 0", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .type = 0), 0 },
	{ "type seqpacket", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .type = 2), 0 },
	{ "type 65535", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .type = 65535), 0 },
	{ "no listener", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_port = 9), 0 },
	{ "port 2^32-1", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_port = UINT32_MAX), 0 },
	{ "port 0", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_port = 0), 0 },
	{ "from port 2^32-1", VSOCK_OP_RST,
		PKT(VSOCK_OP_REQUEST, .dst_port = 9, .src_port = UINT32_MAX), 0 },
	{ "to the loopback", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_cid = 1), 0 },
	{ "to cid 2^32-1", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_cid = UINT32_MAX), 0 },
	{ "to the host's cid, high half set", VSOCK_OP_RST,
		PKT(VSOCK_OP_REQUEST, .dst_cid = 1ull << 32 | 2), 0 },
	{ "forged: from cid 0", 0, PKT(VSOCK_OP_REQUEST, .src_cid = 0), 0 },
	{ "forged: from cid 2^64-1", 0, PKT(VSOCK_OP_REQUEST, .src_cid = UINT64_MAX), 0 },
	{ "forged: reset", 0, PKT(VSOCK_OP_RST, .src_cid = 43), 0 },
	{ "reset that lies about its length", VSOCK_OP_RST, PKT(VSOCK_OP_RST, .len = 100), 0 },
	{ "credit request", VSOCK_OP_RST, PKT(VSOCK_OP_CREDIT_REQUEST), 0 },
	{ "data of length 2^32-1", VSOCK_OP_RST, PKT(VSOCK_OP_RW, .len = UINT32_MAX), 64 },
	{ "data of seqpacket", VSOCK_OP_RST, PKT(VSOCK_OP_RW, .type = 2), 0 },
	{ "to the hypervisor", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_cid = 0), 0 },
	{ "to itself", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_cid = FAKE_CID), 0 },
	{ "to a sibling", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_cid = 43), 0 },
	{ "to cid 2^64-1", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .dst_cid = UINT64_MAX), 0 },
	{ "forged: from the host", 0, PKT(VSOCK_OP_REQUEST, .src_cid = 2), 0 },
	{ "forged: from a sibling", 0, PKT(VSOCK_OP_REQUEST, .src_cid = 43), 0 },
	{ "forged: high half of the cid", 0,
		PKT(VSOCK_OP_REQUEST, .src_cid = 1ull << 32 | FAKE_CID), 0 },
	{ "request that lies about its length", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST, .len = 100),
		0 },
};

/* Sends B; its answer has to come, and no other. */
static void answers(const struct bad_packet *b)
{
	static const uint8_t data[65536];
	struct vsock_pkt got;
	bool any;

	fake_tx(&f, &b->p, data, b->bytes);
	fake_wait_used(&f, 1, f.rings[1].avail);
	any = fake_rx(&f, &got, NULL, b->answer ? 3000 : 20);
	if (any != (b->answer != 0) || (any && got.op != b->answer))
		fail_msg("%s: answer %s", b->name, any ? vsock_wire_op_name(got.op) : "none");
	if (any) {
		assert_int_equal(got.src_cid, b->p.dst_cid);
		assert_int_equal(got.src_port, b->p.dst_port);
		assert_int_equal(got.dst_port, b->p.src_port);
		assert_int_equal(got.type, b->p.type);
	}
}

static void packets_for_nobody(void **state)
{
	int l;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 8);
	for (size_t i = 0; i < ARRAY_SIZE(for_nobody); i++)
		answers(&for_nobody[i]);
	assert_int_equal(accept4(l, NULL, NULL, SOCK_NONBLOCK), -1);
	close(l);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

static const struct bad_packet on_open[] = {
	{ "request again", VSOCK_OP_RST, PKT(VSOCK_OP_REQUEST), 0 },
	{ "response", VSOCK_OP_RST, PKT(VSOCK_OP_RESPONSE), 0 },
	{ "operation 0", VSOCK_OP_RST, PKT(VSOCK_OP_INVALID), 0 },
	{ "operation 99", VSOCK_OP_RST, PKT(99), 0 },
	{ "lies about its length", VSOCK_OP_RST, PKT(VSOCK_OP_RW, .len = 101), 100 },
	{ "length 2^32-1", VSOCK_OP_RST, PKT(VSOCK_OP_RW, .len = UINT32_MAX), 100 },
	{ "shutdown of both", VSOCK_OP_RST, PKT(VSOCK_OP_SHUTDOWN, .flags = 3), 0 },
	{ "shutdown of nothing", 0, PKT(VSOCK_OP_SHUTDOWN, .flags = 0), 0 },
	{ "shutdown with unknown flags", 0, PKT(VSOCK_OP_SHUTDOWN, .flags = 0xfffffffc), 0 },
	{ "reset", 0, PKT(VSOCK_OP_RST), 0 },
	{ "reset with a payload", 0, PKT(VSOCK_OP_RST, .len = 64), 64 },
	{ "operation 65535", VSOCK_OP_RST, PKT(65535), 0 },
	{ "same ports, other type", VSOCK_OP_RST, PKT(VSOCK_OP_RW, .type = 2), 0 },
	{ "same ports, other cid", VSOCK_OP_RST, PKT(VSOCK_OP_RW, .dst_cid = 43), 0 },
	{ "same ports, forged", 0, PKT(VSOCK_OP_RST, .src_cid = 43), 0 },
	{ "shutdown of receiving", 0, PKT(VSOCK_OP_SHUTDOWN, .flags = 1), 0 },
	{ "shutdown with a payload", 0, PKT(VSOCK_OP_SHUTDOWN, .len = 64), 64 },
	{ "shutdown that lies about its length", VSOCK_OP_RST,
		PKT(VSOCK_OP_SHUTDOWN, .len = 65, .flags = 2), 64 },
	{ "credit of 4 GiB", 0, PKT(VSOCK_OP_CREDIT_UPDATE, .buf_alloc = UINT32_MAX), 0 },
	{ "credit that runs backwards", 0, PKT(VSOCK_OP_CREDIT_UPDATE, .fwd_cnt = -1u), 0 },
	{ "credit update with a payload", 0, PKT(VSOCK_OP_CREDIT_UPDATE, .len = 64), 64 },
	{ "data within more bytes", 0, PKT(VSOCK_OP_RW, .len = 10), 64 },
	{ "all of its credit", VSOCK_OP_CREDIT_UPDATE, PKT(VSOCK_OP_RW, .len = 65536), 65536 },
	{ "empty data", 0, PKT(VSOCK_OP_RW), 0 },
	{ "credit request", VSOCK_OP_CREDIT_UPDATE, PKT(VSOCK_OP_CREDIT_REQUEST), 0 },
	{ "credit of nothing", 0, PKT(VSOCK_OP_CREDIT_UPDATE, .buf_alloc = 0), 0 },
	{ "credit beyond what was sent", 0, PKT(VSOCK_OP_CREDIT_UPDATE, .fwd_cnt = 12345), 0 },
};

static void packets_on_open(void **state)
{
	const struct vsock_pkt request = PKT(VSOCK_OP_REQUEST);
	int l;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 64);
	for (size_t i = 0; i < ARRAY_SIZE(on_open); i++) {
		const struct vsock_pkt rst = PKT(VSOCK_OP_RST);
		int fd;

		fake_tx(&f, &request, NULL, 0);
		fake_expect(&f, VSOCK_OP_RESPONSE, 1000, NULL);
		fd = accept(l, NULL, NULL);
		answers(&on_open[i]);
		fake_tx(&f, &rst, NULL, 0);
		fake_wait_used(&f, 1, f.rings[1].avail);
		close(fd);
		fake_assert_no_leak(&f);
	}
	close(l);
	fake_stop(&f);
}

/* A call of the host that the guest answers with anything but RESPONSE. */
static void answers_to_a_call(void **state)
{
	static const struct {
		uint16_t op;
		bool rst;
	} cases[] = { { VSOCK_OP_INVALID, true }, { VSOCK_OP_REQUEST, true },
		{ VSOCK_OP_RST, false }, { VSOCK_OP_SHUTDOWN, true }, { VSOCK_OP_RW, true },
		{ VSOCK_OP_CREDIT_UPDATE, true }, { VSOCK_OP_CREDIT_REQUEST, true }, { 8, true },
		{ 65535, true } };

	fake_setup(&f);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vsock_pkt p;
		int fd = fake_connect(&f);
		char c;

		assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
		p = fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL);
		p = fake_pkt(cases[i].op, 5000, p.src_port);
		fake_tx(&f, &p, NULL, 0);
		if (cases[i].rst)
			fake_expect(&f, VSOCK_OP_RST, 5000, NULL);
		if (read(fd, &c, 1) != 0)
			fail_msg("operation %u is no refusal", cases[i].op);
		close(fd);
	}
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

/* Somebody else's answer is not the answer. */
static void others_answer(void **state)
{
	struct vsock_pkt p, got;
	char ok[32];
	int fd;

	fake_setup(&f);
	fd = fake_connect(&f);
	assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
	p = fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL);
	p = fake_pkt(VSOCK_OP_RESPONSE, 5000, p.src_port);
	got = p;
	got.src_port = 5001;
	fake_tx(&f, &got, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, 5001, NULL);
	got = p;
	got.dst_port++;
	fake_tx(&f, &got, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, 5000, NULL);
	got = p;
	got.type = VSOCK_TYPE_SEQPACKET;
	fake_tx(&f, &got, NULL, 0);
	fake_expect(&f, VSOCK_OP_RST, 5000, NULL);
	assert_int_equal(recv(fd, ok, 1, MSG_DONTWAIT), -1);
	fake_tx(&f, &p, NULL, 0);
	assert_true(read(fd, ok, sizeof ok) > 3);
	assert_memory_equal(ok, "OK ", 3);
	close(fd);
	fake_stop(&f);
}

/* Asked for credit without end, it answers as often as the guest takes answers, and no more. */
static void credit_flood(void **state)
{
	struct vsock_pkt p = PKT(VSOCK_OP_REQUEST), got;
	unsigned asked = 20000, told = 0;
	int l, fd;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 8);
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, 1000, NULL);
	fd = accept(l, NULL, NULL);
	p = (struct vsock_pkt)PKT(VSOCK_OP_CREDIT_REQUEST);
	for (unsigned i = 0; i < asked; i++) {
		fake_tx(&f, &p, NULL, 0);
		while (fake_rx(&f, &got, NULL, 0)) {
			assert_int_equal(got.op, VSOCK_OP_CREDIT_UPDATE);
			told++;
		}
	}
	while (fake_rx(&f, &got, NULL, 200))
		told++;
	assert_in_range(told, 1, asked);
	close(fd);
	close(l);
	fake_stop(&f);
}

/* More than the credit: reset. The socket takes ~200 KiB, the ring 64 KiB, then it is too much. */
static void credit_overrun(void **state)
{
	static const uint8_t data[65536];
	struct vsock_pkt request = PKT(VSOCK_OP_REQUEST), data_pkt = PKT(VSOCK_OP_RW, .len = 65536);
	struct vsock_pkt got;
	int l;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 64);
	fake_tx(&f, &request, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, 1000, NULL);
	for (int i = 0; i < 16; i++)
		fake_tx(&f, &data_pkt, data, sizeof data);
	do
		assert_true(fake_rx(&f, &got, NULL, 3000));
	while (got.op == VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(got.op, VSOCK_OP_RST);
	close(l);
	fake_stop(&f);
}

/* No credit, no bytes; with credit they come. A shrinking buf_alloc is not below nothing. */
static void zero_credit_stops(void **state)
{
	struct vsock_pkt request = PKT(VSOCK_OP_REQUEST, .buf_alloc = 0), got;
	struct vsock_pkt update = PKT(VSOCK_OP_CREDIT_UPDATE, .buf_alloc = 10);
	uint8_t buf[FAKE_RX_BYTES];
	int l, fd;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 64);
	fake_tx(&f, &request, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, 1000, NULL);
	fd = accept(l, NULL, NULL);
	assert_int_equal(write(fd, "0123456789abcdef", 16), 16);
	assert_false(fake_rx(&f, &got, buf, 100));
	fake_tx(&f, &update, NULL, 0);
	assert_int_equal(fake_expect(&f, VSOCK_OP_RW, 1000, buf).len, 10);
	update.buf_alloc = 3;
	fake_tx(&f, &update, NULL, 0);
	while (fake_rx(&f, &got, buf, 100))
		assert_int_not_equal(got.op, VSOCK_OP_RW);
	update.fwd_cnt = 10;
	fake_tx(&f, &update, NULL, 0);
	assert_int_equal(fake_expect(&f, VSOCK_OP_RW, 1000, buf).len, 3);
	assert_memory_equal(buf, "abc", 3);
	close(fd);
	close(l);
	fake_stop(&f);
}

static void data_before_response(void **state)
{
	struct vsock_pkt p;
	uint32_t port;
	char c;
	int fd;

	fake_setup(&f);
	fd = fake_connect(&f);
	assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
	port = fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL).src_port;
	p = fake_pkt(VSOCK_OP_RW, 5000, port);
	p.len = 3;
	fake_tx(&f, &p, "abc", 3);
	fake_expect(&f, VSOCK_OP_RST, 5000, NULL);
	assert_int_equal(read(fd, &c, 1), 0);
	close(fd);
	fake_assert_no_leak(&f);
	fake_stop(&f);
}

static void data_after_shutdown(void **state)
{
	struct vsock_pkt p = PKT(VSOCK_OP_REQUEST);
	int l;

	fake_setup(&f);
	l = fake_listen(&f, 7000, 8);
	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, 1000, NULL);
	p = (struct vsock_pkt)PKT(VSOCK_OP_SHUTDOWN, .flags = VSOCK_SHUTDOWN_SEND);
	fake_tx(&f, &p, NULL, 0);
	p = (struct vsock_pkt)PKT(VSOCK_OP_RW, .len = 1);
	fake_tx(&f, &p, "x", 1);
	fake_expect(&f, VSOCK_OP_RST, 1000, NULL);
	close(l);
	fake_stop(&f);
}

/* A guest that asks for answers and takes none is not served further, and nothing grows. */
static void answers_not_taken(void **state)
{
	struct vsock_pkt p = PKT(VSOCK_OP_RW), got;
	unsigned n = 0;

	fake_start(&f);
	fake_handshake(&f);
	for (int i = 0; i < FAKE_NUM; i++) {
		vsock_wire_put(f.mem + AT, &p);
		fake_desc(&f, 1, (uint16_t)i, AT, VSOCK_HEADER_BYTES, 0, 0);
		fake_offer(&f, 1, (uint16_t)i);
	}
	fake_kick(&f, 1);
	fake_wait_used(&f, 1, 128);
	usleep(20000);
	assert_int_equal(fake_used(&f, 1), 128); /* and no further */
	fake_post_rx(&f, FAKE_NUM);
	while (n < FAKE_NUM && fake_rx(&f, &got, NULL, 1000))
		n++;
	assert_int_equal(n, FAKE_NUM);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rings_break_alone),
		cmocka_unit_test(rx_rings_break_alone),
		cmocka_unit_test(header_in_many_pieces),
		cmocka_unit_test(odd_chains),
		cmocka_unit_test(odd_buffers),
		cmocka_unit_test(region_borders),
		cmocka_unit_test(kick_storm),
		cmocka_unit_test(endless_queue),
		cmocka_unit_test(packets_for_nobody),
		cmocka_unit_test(packets_on_open),
		cmocka_unit_test(answers_to_a_call),
		cmocka_unit_test(others_answer),
		cmocka_unit_test(credit_flood),
		cmocka_unit_test(credit_overrun),
		cmocka_unit_test(zero_credit_stops),
		cmocka_unit_test(data_before_response),
		cmocka_unit_test(data_after_shutdown),
		cmocka_unit_test(answers_not_taken),
	};
	int failed = 0;

	for (int i = 0; i < 2; i++) {
		fake_indirect = i;
		failed += cmocka_run_group_tests_name(
			i ? "indirect descriptors" : "split rings", tests, NULL, NULL);
	}
	return failed;
}
