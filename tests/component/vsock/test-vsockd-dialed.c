/*
 * A real uvms-vsockd with a front-end as Cloud Hypervisor's: its memory cannot be sealed, it has the event queue served,
 * and it hangs up and comes back with rings that the guest goes on with.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <linux/virtio_vsock.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fake-frontend.h"
#include "unit.h"

#define EVENT 2

static struct fake f;

static void post_event(uint16_t i)
{
	memset(f.mem + FAKE_SCRATCH + 64 * i, 0xff, 64);
	fake_desc(&f, EVENT, i, FAKE_SCRATCH + 64u * i, 4, VRING_DESC_F_WRITE, 0);
	fake_offer(&f, EVENT, i);
	fake_kick(&f, EVENT);
}

static void expect_event(uint16_t i)
{
	uint32_t id;

	fake_wait_used(&f, EVENT, i + 1);
	memcpy(&id, f.mem + FAKE_SCRATCH + 64 * i, sizeof id);
	assert_int_equal(le32toh(id), VIRTIO_VSOCK_EVENT_TRANSPORT_RESET);
	memcpy(&id, f.mem + FAKE_SCRATCH + 64 * i + 4, sizeof id);
	assert_int_equal(id, UINT32_MAX); /* and nothing behind it */
}

static void guest_calls(int l, uint32_t guest_port, uint32_t port)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_REQUEST, guest_port, port);
	struct pollfd waits = { .fd = l, .events = POLLIN };

	fake_tx(&f, &p, NULL, 0);
	fake_expect(&f, VSOCK_OP_RESPONSE, guest_port, NULL);
	assert_int_equal(poll(&waits, 1, 3000), 1);
	close(accept4(l, NULL, NULL, SOCK_CLOEXEC));
	fake_expect(&f, VSOCK_OP_SHUTDOWN, guest_port, NULL);
	p = fake_pkt(VSOCK_OP_RST, guest_port, port);
	fake_tx(&f, &p, NULL, 0);
}

/* All queues of a guest that goes on; what it says of where they stand is where the driver is. */
static void set_up_again(void)
{
	assert_int_not_equal(f.rings[0].avail, fake_used(&f, 0)); /* buffers wait */
	fake_handshake(&f);
	fake_setup_queue(&f, EVENT);
}

/* No event for a guest that begins; one for a guest that has used another device, and then new calls both ways. */
static void another_device(void **state)
{
	int l;

	fake_unsealed = true;
	fake_setup(&f);
	fake_setup_queue(&f, EVENT);
	post_event(0);
	l = fake_listen(&f, 7000, 16);
	guest_calls(l, 1000, 7000);
	assert_int_equal(fake_used(&f, EVENT), 0);
	for (uint16_t i = 0; i < 3; i++) {
		fake_redial(&f);
		set_up_again();
		expect_event(i);
		post_event(i + 1);
		/* buffers that waited for the former device are filled, none of its packets is taken twice */
		guest_calls(l, 1001u + i, 7000);
	}
	close(l);
	fake_stop(&f);
}

/* What a guest gets before it has read that, it forgets: so it gets nothing, whoever calls. */
static void nothing_before_it_is_read(void **state)
{
	const struct vsock_pkt call = fake_pkt(VSOCK_OP_REQUEST, 1001, 7000);
	struct vsock_pkt p;
	int l, fd;

	fake_unsealed = true;
	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	guest_calls(l, 1000, 7000);
	fake_redial(&f);
	fd = fake_connect(&f);
	assert_int_equal(write(fd, "CONNECT 5000\n", 13), 13);
	set_up_again();
	fake_tx(&f, &call, NULL, 0);
	assert_false(fake_rx(&f, &p, NULL, 100)); /* no buffer for the event */
	post_event(0);
	expect_event(0);
	assert_false(fake_rx(&f, &p, NULL, 100)); /* not read yet */
	post_event(1);
	fake_expect(&f, VSOCK_OP_REQUEST, 5000, NULL);
	fake_expect(&f, VSOCK_OP_RESPONSE, 1001, NULL);
	close(fd);
	close(l);
	fake_stop(&f);
}

/* A guest that reads no events is not waited for longer than a second, and is not told later. */
static void event_is_not_read(void **state)
{
	uint64_t begin;
	int l;

	fake_unsealed = true;
	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	guest_calls(l, 1000, 7000);
	fake_redial(&f);
	begin = fake_now_usec();
	set_up_again();
	guest_calls(l, 1001, 7000);
	assert_in_range(fake_now_usec() - begin, 900000, 3000000);
	post_event(0);
	guest_calls(l, 1002, 7000);
	assert_int_equal(fake_used(&f, EVENT), 0);
	close(l);
	fake_stop(&f);
}

/* A buffer that is too small costs the queue. */
static void event_has_no_room(void **state)
{
	int l;

	fake_unsealed = true;
	fake_setup(&f);
	l = fake_listen(&f, 7000, 16);
	guest_calls(l, 1000, 7000);
	fake_redial(&f);
	set_up_again();
	fake_desc(&f, EVENT, 0, FAKE_SCRATCH, 3, VRING_DESC_F_WRITE, 0);
	fake_offer(&f, EVENT, 0);
	fake_kick(&f, EVENT);
	guest_calls(l, 1001, 7000);
	post_event(1);
	guest_calls(l, 1002, 7000);
	assert_int_equal(fake_used(&f, EVENT), 0);
	close(l);
	fake_stop(&f);
}

/* Its session is over, with a status that says so, and no signal. */
static void memory_is_cut_off(void **state)
{
	fake_unsealed = true;
	fake_setup(&f);
	assert_int_equal(ftruncate(f.mem_fd, 0), 0);
	assert_int_equal(eventfd_write(f.rings[1].kick, 1), 0);
	assert_int_equal(fake_wait_exit(&f), 3);
}

/* A piece of it, too: as long as that is not touched nothing happens. */
static void a_piece_is_cut_off(void **state)
{
	struct vsock_pkt p = fake_pkt(VSOCK_OP_REQUEST, 1000, 7000);

	fake_unsealed = true;
	fake_setup(&f);
	assert_int_equal(ftruncate(f.mem_fd, FAKE_RX_AT), 0);
	/* the head of a packet lies in what is gone; its ring does not */
	fake_desc(&f, 1, 0, FAKE_TX_AT, sizeof p, 0, 0);
	fake_offer(&f, 1, 0);
	assert_true(fake_alive(&f));
	fake_kick(&f, 1);
	assert_int_equal(fake_wait_exit(&f), 3);
}

/* Who is not told that it may be so takes no such memory: QEMU's is sealed. */
static void unsealed_is_refused(void **state)
{
	fake_unsealed = false;
	fake_start(&f);
	close(f.mem_fd);
	f.mem_fd = fake_memory(false);
	fake_get_u64(&f, VU_GET_FEATURES);
	fake_set_memory(&f);
	assert_int_equal(fake_wait_exit(&f), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_device),
		cmocka_unit_test(nothing_before_it_is_read),
		cmocka_unit_test(event_is_not_read),
		cmocka_unit_test(event_has_no_room),
		cmocka_unit_test(memory_is_cut_off),
		cmocka_unit_test(a_piece_is_cut_off),
		cmocka_unit_test(unsealed_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
