/* Two processes one after the other, played by two back-ends on duplicates of one session. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cleanup.h"
#include "fdpass.h"
#include "unit.h"
#include "vu-resume.h"

#define MEM_BYTES (1u << 20)
#define MEM_USER  0x7f0000000000ull
#define FEATURES  (1ull << VIRTIO_F_VERSION_1 | 1ull << VU_FEATURE_PROTOCOL)

static struct loop loop;
static struct vu_backend b;
static struct vu_keep keep;
static int far_end, near_end, mem_fd, state_fd, kept[KEEPER_SLOTS], channel[2], event;
static int n_started, n_stopped, n_kicked, n_ended;
static uint8_t *mem, *page;

static int dev_config(struct vu_backend *backend, uint32_t offset, void *ret, uint32_t len)
{
	return -EINVAL;
}

static void dev_kicked(struct vu_backend *backend, unsigned queue)
{
	n_kicked++;
}

static void dev_started(struct vu_backend *backend, unsigned queue, enum vu_begin how)
{
	n_started++;
	assert_int_equal(how, VU_BEGIN_ON);
}

static void dev_stopped(struct vu_backend *backend, unsigned queue)
{
	n_stopped++;
}

static void dev_ended(struct vu_backend *backend, int error, const char *what)
{
	n_ended++;
}

static const struct vu_device device = { .n_queues = 2,
	.config = dev_config,
	.kicked = dev_kicked,
	.started = dev_started,
	.stopped = dev_stopped,
	.ended = dev_ended };

/* What the supervisor does with what comes. */
static void keeper_drain(void)
{
	for (;;) {
		uint8_t bytes[KEEPER_WIRE_BYTES];
		struct keeper_msg m;
		int fd = -EBADF;
		size_t n_fds = 1;
		ssize_t n;

		n = recv(channel[0], bytes, 1, MSG_PEEK | MSG_DONTWAIT);
		if (n <= 0)
			return;
		n = fdpass_recv(channel[0], bytes, sizeof bytes, &fd, &n_fds);
		assert_int_equal(keeper_wire_get(bytes, (size_t)n, n_fds, &m), 0);
		if (m.op != KEEPER_KEEP && m.op != KEEPER_DROP)
			continue;
		if (kept[m.slot] >= 0)
			close(kept[m.slot]);
		kept[m.slot] = fd;
	}
}

static size_t keeper_count(void)
{
	size_t n = 0;

	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		n += kept[i] >= 0;
	return n;
}

/* A process begins; what vu_resume() says. */
static int life_begin(void)
{
	uint8_t bytes[KEEPER_WIRE_BYTES];
	int r;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, channel), 0);
	for (uint8_t i = 0; i < KEEPER_SLOTS; i++) {
		if (kept[i] < 0)
			continue;
		keeper_wire_put(bytes, &(struct keeper_msg){ KEEPER_KEEP, i, 0 });
		fdpass_send(channel[0], bytes, sizeof bytes, &kept[i], 1);
	}
	keeper_wire_put(bytes, &(struct keeper_msg){ KEEPER_GO, 0, 0 });
	fdpass_send(channel[0], bytes, sizeof bytes, NULL, 0);
	n_started = n_stopped = n_kicked = n_ended = 0;
	assert_int_equal(vu_backend_open(&b, &loop, &device, dup(near_end)), 0);
	assert_int_equal(vu_keep_open(&keep, channel[1], state_fd), 0);
	assert_int_equal(vu_keep_receive(&keep), 0);
	r = vu_resume(&b, &keep);
	vu_keep_drop_rest(&keep);
	return r;
}

/* It dies: whatever it would still have said is not said. */
static void life_end(void)
{
	b.keep = NULL;
	vu_backend_close(&b);
	vu_keep_close(&keep);
	keeper_drain();
	close(channel[0]);
}

static void turn(void)
{
	b.source.fn(&b.source, EPOLLIN);
}

static void say(uint32_t request, const void *payload, uint32_t len, int fd)
{
	uint8_t bytes[128];
	const uint32_t head[3] = { request, VU_FLAG_VERSION, len };

	memcpy(bytes, head, sizeof head);
	if (len > 0)
		memcpy(bytes + sizeof head, payload, len);
	assert_int_equal(fdpass_send(far_end, bytes, sizeof head + len, &fd, fd >= 0),
		(ssize_t)(sizeof head + len));
}

static void say64(uint32_t request, uint64_t v, int fd)
{
	say(request, &v, sizeof v, fd);
	turn();
}

static void say_memory(void)
{
	say(VU_SET_MEM_TABLE, (uint64_t[]){ 1, 0, MEM_BYTES, MEM_USER, 0 }, 40, mem_fd);
}

static void say_queue(uint64_t i)
{
	uint64_t at = MEM_USER + 0x10000 * i;

	say64(VU_SET_VRING_NUM, 16ull << 32 | i, -EBADF);
	say(VU_SET_VRING_ADDR, (uint64_t[]){ i, at, at + 0x2000, at + 0x1000, 0 }, 40, -EBADF);
	turn();
	say64(VU_SET_VRING_KICK, i, event);
	say64(VU_SET_VRING_CALL, i, event);
	say64(VU_SET_VRING_ENABLE, 1ull << 32 | i, -EBADF);
}

static void used_is(unsigned i, uint16_t v)
{
	memcpy(mem + 0x10000 * i + 0x2000 + 2, &v, sizeof v);
}

static void setup(void)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	far_end = pair[0];
	near_end = pair[1];
	memset(kept, 0xff, sizeof kept);
	state_fd = memfd_create("state", MFD_CLOEXEC);
	mem_fd = memfd_create("mem", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(ftruncate(mem_fd, MEM_BYTES), 0);
	assert_int_equal(fcntl(mem_fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
	mem = mmap(NULL, MEM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, mem_fd, 0);
	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_int_equal(life_begin(), 0);
	page = mmap(NULL, VU_STATE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, state_fd, 0);
	say64(VU_SET_FEATURES, FEATURES, -EBADF);
	say_memory();
	turn();
	say_queue(0);
	say_queue(1);
	assert_int_equal(n_ended, 0);
}

static void teardown(void)
{
	for (size_t i = 0; i < KEEPER_SLOTS; i++) {
		if (kept[i] >= 0)
			close(kept[i]);
	}
	munmap(mem, MEM_BYTES);
	munmap(page, VU_STATE_PAGE_BYTES);
	close(mem_fd);
	close(state_fd);
	close(event);
	close(far_end);
	close(near_end);
}

static void goes_on_where_it_stood(void **state)
{
	eventfd_t v;

	setup();
	life_end();
	assert_int_equal(keeper_count(), 5);
	used_is(1, 9);
	eventfd_read(event, &v);
	for (int life = 0; life < 3; life++) {
		assert_int_equal(life_begin(), 1);
		assert_int_equal(n_started, 2);
		assert_int_equal(n_kicked, 2);
		assert_int_equal(b.queues[1].vq.last_avail, 9);
		assert_true(b.queues[0].running && b.queues[0].enabled);
		assert_int_equal(b.features, FEATURES);
		assert_int_equal(eventfd_read(event, &v), 0); /* the guest is interrupted */
		life_end();
		assert_int_equal(keeper_count(), 5);
	}
	teardown();
}

/* The guest is reset: everything is said anew, and nothing piles up at the keeper's. */
static void slots_do_not_pile_up(void **state)
{
	uint8_t drop[256];

	setup();
	for (int i = 0; i < 100; i++) {
		say64(VU_GET_VRING_BASE, 0, -EBADF);
		say_memory();
		turn();
		used_is(0, 0);
		say_queue(0);
		keeper_drain();
		while (recv(far_end, drop, sizeof drop, MSG_DONTWAIT) > 0)
			;
		if (i % 10 == 9) {
			life_end();
			assert_int_equal(life_begin(), 1);
		}
		assert_int_equal(n_ended, 0);
		keeper_drain();
		assert_int_equal(keeper_count(), 5);
	}
	life_end();
	teardown();
}

/* A request that was obeyed but not taken out is found again, and answered once. */
static void request_left_is_obeyed(void **state)
{
	const uint64_t second = 1;
	uint32_t reply[5];

	setup();
	used_is(1, 3);
	life_end();
	say(VU_GET_VRING_BASE, &second, 8, -EBADF);
	say_memory();
	assert_int_equal(life_begin(), 1);
	turn();
	assert_int_equal(recv(far_end, reply, sizeof reply, 0), 20);
	assert_int_equal(reply[0], VU_GET_VRING_BASE);
	assert_int_equal(reply[4], 3);
	assert_int_equal(recv(far_end, reply, sizeof reply, MSG_DONTWAIT), -1);
	assert_false(b.queues[1].running);
	life_end();
	assert_int_equal(life_begin(), 1);
	assert_int_equal(n_stopped, 1);
	assert_int_equal(b.queues[1].base, 3);
	life_end();
	teardown();
}

/* Killed at each stage of an answer: there is one reply, never none, never two. */
static void one_answer(void **state)
{
	enum { NOT_TAKEN, TAKEN, SENT, STAGES };

	for (int stage = 0; stage < STAGES; stage++) {
		struct vu_keep_page_answer {
			struct mmsghdr take, send;
			uint32_t len;
		} * a;
		uint64_t reply[3];
		uint32_t len = 20;

		setup();
		a = (void *)(page + VU_STATE_COPY_AT(2));
		say(VU_GET_QUEUE_NUM, NULL, 0, -EBADF);
		turn();
		life_end();
		memcpy(page + 4, &(uint32_t){ VU_STATE_ANSWERING }, 4);
		assert_int_equal(a->take.msg_len, 12);
		assert_int_equal(a->send.msg_len, 20);
		assert_int_equal(a->len, len);
		if (stage != SENT) {
			a->send.msg_len = 0;
			assert_int_equal(recv(far_end, reply, sizeof reply, 0), 20);
		}
		if (stage == NOT_TAKEN) {
			a->take.msg_len = 0;
			say(VU_GET_QUEUE_NUM, NULL, 0, -EBADF);
		}
		assert_int_equal(life_begin(), 1);
		if (stage == NOT_TAKEN)
			turn();
		assert_int_equal(recv(far_end, reply, sizeof reply, MSG_DONTWAIT), 20);
		assert_int_equal(recv(far_end, reply, sizeof reply, MSG_DONTWAIT), -1);
		assert_int_equal(page[4], VU_STATE_IDLE);
		life_end();
		teardown();
	}
}

/* Half a message was read: nobody can put it together again. */
static void pieces_are_lost(void **state)
{
	setup();
	assert_int_equal(send(far_end, "\1\0\0\0\1", 5, 0), 5);
	turn();
	life_end();
	assert_int_equal(life_begin(), -ESTALE);
	life_end();
	teardown();
}

static void what_is_missing_is_said(void **state)
{
	setup();
	life_end();
	for (size_t i = 0; i < KEEPER_SLOTS; i++) {
		int fd = kept[i];

		if (fd < 0)
			continue;
		kept[i] = -EBADF;
		assert_int_equal(life_begin(), -ENODATA);
		life_end();
		memset(kept, 0xff, sizeof kept); /* it has dropped them all */
		close(fd);
		break;
	}
	teardown();
}

/* Whatever a byte of the page becomes: taken over, refused, or new, but nothing worse. */
static void hostile_page(void **state)
{
	static uint8_t good[VU_STATE_PAGE_BYTES];
	int duplicates[KEEPER_SLOTS], n_refused = 0;

	setup();
	life_end();
	memcpy(good, page, sizeof good);
	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		duplicates[i] = kept[i];
	for (size_t at = 0; at < sizeof good; at += at < 16 || (at >= 1024 && at < 3072) ? 1 : 64) {
		int r;

		memcpy(page, good, sizeof good);
		page[at] ^= (uint8_t)(1 + at % 255);
		for (size_t i = 0; i < KEEPER_SLOTS; i++)
			kept[i] = duplicates[i] >= 0 ? dup(duplicates[i]) : -EBADF;
		r = life_begin();
		assert_true(r <= 1);
		n_refused += r < 0;
		life_end();
		for (size_t i = 0; i < KEEPER_SLOTS; i++) {
			if (kept[i] >= 0)
				close(kept[i]);
			kept[i] = -EBADF;
		}
	}
	assert_true(n_refused > 30);
	for (size_t i = 0; i < KEEPER_SLOTS; i++)
		kept[i] = duplicates[i];
	teardown();
}

/* One that is wrong in one slot is as good as another: the memory's file must be a memory's. */
static void wrong_slots(void **state)
{
	setup();
	life_end();
	for (size_t i = 0; i < KEEPER_SLOTS; i++) {
		if (kept[i] >= 0 && dup2(state_fd, kept[i]) < 0)
			fail();
	}
	assert_true(life_begin() < 0);
	life_end();
	teardown();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(goes_on_where_it_stood),
		cmocka_unit_test(slots_do_not_pile_up),
		cmocka_unit_test(request_left_is_obeyed),
		cmocka_unit_test(one_answer),
		cmocka_unit_test(pieces_are_lost),
		cmocka_unit_test(what_is_missing_is_said),
		cmocka_unit_test(hostile_page),
		cmocka_unit_test(wrong_slots),
	};

	if (loop_init(&loop) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
